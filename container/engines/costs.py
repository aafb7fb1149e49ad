"""What an image costs in OpenVINO, and how it is cut so that it can be afforded."""

from __future__ import annotations

import dataclasses

from container.engines import heads, tiles
from container.engines.protocol import Plan, TooLarge

LARGE_IMAGE = 300_000  # pixels above which the network's memory is given back after the answer, 2 % of its time

# Measured with VmHWM at 2 million pixels: in float32 fcn takes 364 bytes per pixel, deeplab 429, psp 712; in bfloat16
# 200, 233 and 375; in int8 333, 470 and 669. With resnet-18, a quarter as wide: fcn 123, deeplab 233, psp 189; in
# bfloat16 49, 108 and 78; in int8 108, 158 and 181.
_BYTES_PER_PIXEL = {"wide local": 400, "wide global": 700, "narrow local": 150, "narrow global": 250}
# Pixels that the network sees at once at least, and at most, where tiles are exact. In tiles of 8 million pixels an
# image of 12 million is computed in 1.11 times the pixels; between two tiles it can be given up.
_TILE = (1_000_000, 8_000_000)
_IMAGE_BYTES = 8  # per pixel: the image, what its decoding takes besides, and its mask
_BAND_BYTES = 3 * 4  # per score of a band: it is interpolated down, across, and answered


@dataclasses.dataclass(frozen=True)
class Costs:
    """One model's: `reach` as in `tiles`, `bytes_per_pixel` of the network."""

    num_classes: int
    reach: int | None
    bytes_per_pixel: int

    @classmethod
    def of(cls, num_classes: int, reach: int | None, precision: str, *, is_narrow: bool = False) -> Costs:
        """Return what was measured for networks of that reach and width in that precision."""
        whole = _BYTES_PER_PIXEL[f"{'narrow' if is_narrow else 'wide'} {'global' if reach is None else 'local'}"]
        return cls(num_classes, reach, whole * 11 // 20 if precision == "bfloat16" else whole)

    @property
    def standing(self) -> int:
        """How many bytes the network keeps between two images."""
        return self.bytes_per_pixel * LARGE_IMAGE

    @property
    def usual_tile(self) -> int:
        """How many pixels the network sees at once where nobody plans: as many as take 2 GB."""
        return 2**31 // self.bytes_per_pixel

    def plan(self, height: int, width: int, room: int, answer: int = 0) -> Plan:
        """Return how to compute an image within `room` bytes, of which `answer` are the caller's.

        As few tiles as there is room for; raises TooLarge when not even the smallest would do.
        """
        pixels = height * width
        beside = pixels * (_IMAGE_BYTES + self.num_classes // 8) + answer  # an eighth: coarse logits, twice
        beside += _BAND_BYTES * min(heads.BAND_VALUES, self.num_classes * pixels)
        at_once = beside + self._network(pixels)
        if at_once <= room and (self.reach is None or pixels <= _TILE[1]):
            return Plan(at_once, pixels)
        if self.reach is None:
            raise _too_large(width, height, at_once, room)
        tile = min((room - beside + self.standing) // self.bytes_per_pixel, _TILE[1])
        least = beside + self._network(_TILE[0])
        if tile < _TILE[0]:
            raise _too_large(width, height, least, room)
        return Plan(beside + self._network(tile), tiles.count(height, width, self.reach, tile), tile)

    def _network(self, pixels: int) -> int:
        """Return what the network takes beyond what it keeps anyway."""
        return max(0, self.bytes_per_pixel * pixels - self.standing)


def _too_large(width: int, height: int, needed: int, room: int) -> TooLarge:
    return TooLarge(f"{width}×{height} pixels need about {needed // 2**20} MB; an image may take {room // 2**20} MB")
