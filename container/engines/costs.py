"""Memory costs of models and images in OpenVINO, and the tile plan that fits."""

from __future__ import annotations

import dataclasses

from container.engines import heads
from container.engines.protocol import ImageTooLargeError, Plan
from container.environment import processor_has
from container.geometry import tiles
from container.geometry.windows import Windows

STANDING = 2**26  # bytes that an infer request can retain between two images; it releases larger amounts

# Measured with VmHWM between one and two million pixels, in bytes per pixel of the model input: float32, bfloat16,
# int8. tests/mx/test_costs.py repeats some measurements.
_PRECISIONS = ("float32", "bfloat16", "int8")
_BYTES_PER_PIXEL = {
    "fcn": (310, 158, 288),
    "deeplab": (385, 192, 425),
    "psp": (680, 360, 635),
    "narrow fcn": (160, 63, 140),
    "narrow deeplab": (290, 135, 215),
    "narrow psp": (215, 98, 215),
    "fastscnn": (125, 85, 85),
}
# Memory of a loaded model after its first inference: per byte of the ONNX model, and constant bytes. Measured with
# ONNX models of 11 to 198 MB.
_LOADED = {"float32": (2.25, 0), "bfloat16": (1.56, 2**23), "int8": (2.5, 2**24)}
_LEAST_LOADED = 20 * 2**20  # of fastscnn, whose ONNX model has 5 MB or 1.5 MB
# Additional memory after images of many sizes, because OpenVINO packs weights again for each size: per byte of the ONNX
# model, constant, and for pyramid pooling; each without AVX-512, with it, and with AMX.
# Measured with 140 sizes up to 400×400 (AMX: 256×256). After about 60 sizes, it hardly grows.
_PACKED = {"float32": (2.3, 0.6, 0.6), "bfloat16": (0.3, 0.3, 1.1), "int8": (0, 0.1, 0.6)}
_PACKED_CONSTANT = (12 * 2**20, 0, 120 * 2**20)
_PACKED_PYRAMID = (44 * 2**20, 44 * 2**20, 80 * 2**20)

_THIN = 1.75  # factor of the memory per pixel in images of one or two cells, measured with deeplab in bfloat16
_EXACT_SLOWDOWN = 16  # factor of the time per pixel in the float32 model with compilation: measured 8 to 36
# Time to read and compile that model, in pixels of other images: measured 0.2 to 0.4 million with fcn, 0.6 with psp, 3
# with fastscnn. The smallest is used, because a high estimate makes the server reject other images.
_EXACT_COMPILING = 2**18
_INT8_GROWTH = 4  # size of float32 weights compared with int8

# Minimum and maximum pixels of an exact tile. With tiles of 8 million pixels, an image of 12 million needs 1.11 times
# the pixels. Inference can be cancelled between two tiles.
_TILE = (1_000_000, 8_000_000)
_IMAGE_BYTES = 5  # per pixel: the image, its mask, and a PNG of it
_DECODING_BYTES = 28  # per pixel at most, before inference: of a 16-bit PNG; a JPEG needs 13
_BAND_BYTES = {
    "mask": 5,
    "probabilities": 12,
}  # per value of a band: interpolated vertically and horizontally, and output


def estimate_loaded(weights: int) -> int:
    """Return the maximum bytes of a loaded model with `weights` bytes of weights."""
    per_byte, constant = _LOADED["float32"]
    return int(per_byte * weights) + constant + _packed("float32", "psp", weights)


def estimate_exact(weights: int) -> int:
    """Return the bytes of the float32 model that the check at the start loads for one-column images; 0 without AMX."""
    return estimate_loaded(weights) if processor_has("amx_tile") else 0


def is_one_column(height: int, width: int) -> bool:
    """Return whether an image is one cell wide and higher than one.

    For such images, AMX convolutions of OpenVINO 2026.4 return values that depend on the previous inference.
    """
    rows, columns = tiles.coarse_size(height, width)
    return columns == 1 and rows > 1


def _packed(precision: str, decoder: str, weights: int) -> int:
    """Return the bytes of packed weights that a model retains after images of many sizes, on this processor."""
    level = processor_has("avx512f") + processor_has("amx_tile")
    constant = _PACKED_CONSTANT[level] + (_PACKED_PYRAMID[level] if decoder == "psp" else 0)
    return int(_PACKED[precision][level] * weights) + constant


@dataclasses.dataclass(frozen=True)
class MemoryModel:
    """Memory costs of one model: `reach` as in `tiles`, `bytes_per_pixel` of inference, `loaded` bytes of the model.

    After images of many sizes, the model needs `packed` additional bytes. Without a reach, large images are processed
    in `windows`, if the job set them.
    """

    num_classes: int
    reach: int | None
    bytes_per_pixel: int
    loaded: int = 0
    packed: int = 0
    windows: Windows | None = None
    exact: MemoryModel | None = None  # of the float32 model for images of one column, if the processor needs it

    @classmethod
    def of(
        cls, num_classes: int, reach: int | None, precision: str, decoder: str, *, is_narrow: bool, weights: int
    ) -> MemoryModel:
        """Return the measured costs of this kind of model, with an ONNX model of `weights` bytes."""
        kind = f"narrow {decoder}" if is_narrow else decoder
        per_byte, constant = _LOADED[precision]
        per_pixel = _BYTES_PER_PIXEL[kind][_PRECISIONS.index(precision)]
        loaded = max(_LEAST_LOADED, int(per_byte * weights) + constant)
        exact = None
        if precision != "float32" and processor_has("amx_tile"):
            growth = _INT8_GROWTH if precision == "int8" else 1
            exact = cls.of(num_classes, reach, "float32", decoder, is_narrow=is_narrow, weights=weights * growth)
        return cls(num_classes, reach, per_pixel, loaded, _packed(precision, decoder, weights), exact=exact)

    @property
    def usual_tile(self) -> int:
        """Pixels of a tile if there is no plan: those that need 2 GB."""
        return 2**31 // self.bytes_per_pixel

    def held(self, seen: int, height: int, width: int, needs: str) -> int:
        """Return the bytes of the model and its head for inference on `seen` pixels of an image at the same time."""
        return self._each(height, width) * seen + _BAND_BYTES[needs] * heads.band_values(
            self.num_classes, height, width
        )

    def plan(self, height: int, width: int, room: int, answer: int = 0, needs: str = "mask") -> Plan:
        """Return how to process an image within `room` bytes, of which the response of the caller needs `answer`.

        The tiles are as large as possible. Raises ImageTooLargeError if the smallest tiles do not fit.
        """
        if self.exact and is_one_column(height, width):
            model = self.exact.loaded + self.exact.packed
            plan = self.exact.plan(height, width, room, answer + model, needs)
            return dataclasses.replace(plan, pixels=_EXACT_COMPILING + plan.pixels * _EXACT_SLOWDOWN)
        if self.windows and self.windows.divide(height, width):
            return self._plan_windows(self.windows, height, width, room, answer)
        pixels, seen = height * width, tiles.padded_pixels(height, width)
        base = max(_DECODING_BYTES * pixels, _IMAGE_BYTES * pixels + answer)
        at_once = max(base, self._memory(seen, height, width, needs) + answer)
        if at_once <= room and (self.reach is None or seen <= _TILE[1]):
            return Plan(at_once, seen, passing=at_once - base)
        if self.reach is None:
            raise _too_large(width, height, at_once, room)
        smallest = max(_TILE[0], tiles.least(self.reach))
        least = max(base, self._memory(min(smallest, seen), height, width, needs) + answer)
        if least > room:
            raise _too_large(width, height, least, room)
        tile = min(_TILE[1], smallest + (room - least) // self._each(height, width))
        memory = max(base, self._memory(tile, height, width, needs) + answer)
        return Plan(memory, tiles.count(height, width, self.reach, tile), tile, passing=memory - base)

    def _plan_windows(self, windows: Windows, height: int, width: int, room: int, answer: int) -> Plan:
        pixels, seen = height * width, windows.largest(height, width)
        blended = pixels * _IMAGE_BYTES + windows.memory(self.num_classes, height, width)
        sides = min(height, windows.side), min(width, windows.side)
        network = max(0, self.held(seen, *sides, "probabilities") - STANDING) + seen * self.num_classes // 8
        base = max(_DECODING_BYTES * pixels, _IMAGE_BYTES * pixels + answer)
        memory = max(base, blended + network + answer)
        if memory > room:
            raise _too_large(width, height, memory, room)
        return Plan(memory, windows.pixels(height, width), passing=memory - base)

    def _each(self, height: int, width: int) -> int:
        """Return the bytes per pixel of the model input for an image of this size."""
        return int(self.bytes_per_pixel * (_THIN if tiles.is_thin(height, width) else 1))

    def _memory(self, seen: int, height: int, width: int, needs: str) -> int:
        coarse = (
            tiles.padded_pixels(height, width) * self.num_classes // 8
        )  # 8 bytes per coarse logit (64 pixels): two copies
        return height * width * _IMAGE_BYTES + coarse + max(0, self.held(seen, height, width, needs) - STANDING)


def _too_large(width: int, height: int, needed: int, room: int) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{width}×{height} pixels need about {needed // 2**20} MB; an image may take {room // 2**20} MB"
    )
