"""Statistics of the images and annotations of one channel, collected by several threads."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from container.arrays import Array, Uint8Array
from container.codecs.images import Annotation
from container.data.labels.class_counts import ClassCounts
from container.data.labels.color_maps import ALPHA, TRANSPARENT, color_codes, color_name
from container.data.labels.color_schemes import exchange, find_exchanged
from container.data.labels.decoding import IGNORE, DecodedLabels, UnmappedColorsError
from container.data.labels.depths import Depth
from container.data.labels.label_maps import LabelMap
from container.errors import ClientError, shorten_list

Kind = Literal["unreadable", "same", "size", "colour", "label"]

_MOSTLY = 0.5  # ignored share of the pixels of an annotation
_SHOWN = 5  # colors of one annotation in its error message
_VALUES = 2**17  # distinct pixel values or colors that are counted; all 16-bit values fit


@dataclasses.dataclass(frozen=True)
class PairInfo:
    """Information about one decoded pair: its size in pixels, its labels, and how it was decoded."""

    name: str
    height: int
    width: int
    reading: DecodedLabels
    palette: Uint8Array | None = None
    is_rotated: bool = False  # whether the image was rotated by its EXIF orientation
    is_ambiguous: bool = False  # whether it was not rotated, but has the right size with and without the rotation
    notes: tuple[str, ...] = ()
    digest: bytes | None = None
    sample_counts: Array | None = None  # number of samples per value, of a 16-bit image, (65536,)


class UnusablePairError(ClientError):
    """A pair cannot be used.

    If the annotation can be decoded, `values` contains the pixel counts of all values, and `wrong` those of invalid
    class IDs. `colors` contains the pixel counts by 0xrrggbb if the meaning of the colors is not known.
    """

    def __init__(
        self,
        message: str,
        kind: Kind,
        reading: DecodedLabels | None = None,
        colors: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.values = reading.count_values() if reading else {}
        self.bits = reading.bits if reading else None
        self.wrong = reading.count_values(reading.wrong) if reading else {}
        self.wrong_colors: dict[int, int] = {}  # colors by wrong index, if all entries of the palette occur
        self.colors = colors or {}


@dataclasses.dataclass(frozen=True)
class UnusablePair:
    """Kind and message of an unusable pair, without the error, whose traceback refers to the complete pair."""

    kind: Kind
    message: str


class ChannelStatistics:
    """Statistics of one channel."""

    def __init__(self, channel: str, label_map: LabelMap, num_classes: int, crop: int) -> None:
        self.channel = channel
        self.label_map = label_map
        self.num_classes = num_classes
        self.crop = crop
        self.pairs = 0  # in the channel; 0 if not known
        self.opened = 0
        self.bad: list[UnusablePair] = []
        self.values: Counter[int] = Counter()  # pixels by value, or by color as 0xrrggbb
        self.ignored: set[int] = set()  # ignored keys of `values`
        self.unnamed: Counter[int] = Counter()  # pixels by value that is not in the label map
        self.unusable_values: Counter[int] = Counter()  # pixels of unusable pairs by value
        self.wrong: Counter[int] = Counter()  # those of invalid class IDs
        self.wrong_colors: dict[int, int] = {}  # colors of wrong values in palettes without unused entries
        self.unusable_colors: Counter[int] = Counter()  # pixels of unusable pairs by color without a meaning
        self.unusable_color_images: Counter[int] = Counter()  # number of such pairs by color
        self.exchanged: dict[str, set[int]] = {}  # unknown colors of pairs with red and blue exchanged, by name
        self.straight: Counter[int] = Counter()  # unknown colors of other pairs that have a color of the label map
        self.is_color = False
        self.is_stream = False
        self.labels = np.zeros(256, np.int64)  # pixels by label
        self.images = np.zeros(256, np.int64)  # images by label
        self.within = np.zeros(256, np.int64)  # by label: labeled pixels of all images with this label
        self.unlabeled: list[str] = []
        self.mostly_ignored: list[str] = []
        self.rotated: list[str] = []
        self.ambiguous: list[str] = []
        self.small: list[str] = []
        self.notes: list[str] = []
        self.heights: list[int] = []  # smallest and largest
        self.widths: list[int] = []
        self._sizes: Counter[tuple[int, int]] = Counter()  # images by (height, width)
        self.digests: dict[bytes, list[str]] = {}
        self.repaired: list[str] = []  # names of annotations whose values conflict with the Ground Truth colors
        self.palettes: dict[int, dict[int, list[str]]] = {}  # names by palette index and color
        self.packed: set[str] = set()  # names of annotations without unused palette entries
        self.shared_colors: set[int] = set()  # colors that a palette has at two indices
        self.depths: dict[int, Depth] = {}  # gray annotations by bits
        self.deep: dict[str, int] = {}  # largest sample of each 16-bit image, except for 65535
        self.sample_counts: Array = np.zeros(0, np.int64)  # number of samples per value in these images, (65536,)
        self._lock = threading.Lock()

    def add(self, seen: PairInfo) -> None:
        """Add a usable pair."""
        present = np.flatnonzero(seen.reading.counts)
        labels = seen.reading.label_counts
        others = seen.reading.count_others()
        with self._lock:
            self.opened += 1
            self._count_values(seen.reading, present, others)
            self._note_exchange(seen, present, others)
            self.labels += labels
            self.images += labels > 0
            self.within += (labels > 0) * labels[: self.num_classes].sum()
            self._note_sizes(seen)
            self._note_labels(seen, int(labels[IGNORE]))
            self._note_palette(seen, present)
            if (bits := seen.reading.bits) is not None:
                self.depths.setdefault(bits, Depth()).add(seen.name, seen.reading, _VALUES)
            if seen.sample_counts is not None:
                self.deep[seen.name] = int(np.flatnonzero(seen.sample_counts[:-1]).max(initial=0))
                self.sample_counts = seen.sample_counts + (self.sample_counts if len(self.deep) > 1 else 0)
            self.notes += [f"{seen.name}: {note}" for note in seen.notes]
            if seen.digest:
                self.digests.setdefault(seen.digest, []).append(seen.name)

    def add_unusable(self, error: UnusablePairError) -> int:
        """Add an unusable pair; returns the number of unusable pairs."""
        with self._lock:
            self.opened += 1
            self.bad.append(UnusablePair(error.kind, error.message))
            if error.bits is not None:
                self.depths.setdefault(error.bits, Depth()).values.update(error.values)
            self.unusable_color_images.update(error.colors.keys())
            self.wrong_colors.update(error.wrong_colors)
            for counter, found in (
                (self.unusable_values, error.values),
                (self.wrong, error.wrong),
                (self.unusable_colors, error.colors),
            ):
                if len(counter) < _VALUES:
                    counter.update(found)
            return len(self.bad)

    @property
    def usable(self) -> int:
        """Number of opened pairs that can be used."""
        return self.opened - len(self.bad)

    def sort(self) -> None:
        """Sort the names, which threads added in random order."""
        for names in (self.unlabeled, self.mostly_ignored, self.rotated, self.ambiguous, self.small, self.notes):
            names.sort()
        self.deep = dict(sorted(self.deep.items()))
        for names in (self.repaired, *self.digests.values()):
            names.sort()
        for colors in self.palettes.values():
            for names in colors.values():
                names.sort()
        for depth in self.depths.values():
            for names in depth.names.values():
                names.sort()
        self.bad.sort(key=lambda bad: bad.message)

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """Number of images by (height, width) in pixels."""
        with self._lock:
            return dict(self._sizes)

    @property
    def labeled(self) -> int:
        """Number of pixels with a valid class ID."""
        return int(self.labels[: self.num_classes].sum())

    @property
    def class_counts(self) -> ClassCounts:
        """Frequencies of the classes."""
        return ClassCounts(self.labels[: self.num_classes].tolist(), self.within[: self.num_classes].tolist())

    @property
    def classes(self) -> list[int]:
        """Classes that occur."""
        return [int(label) for label in np.flatnonzero(self.labels[: self.num_classes])]

    def labels_under(self, label_map: LabelMap) -> set[int]:
        """Return the labels of the annotations with another label map; raises ClientError if it is not suitable."""
        found: set[int] = set()
        for bits, depth in self.depths.items():
            stored = np.array([sorted(depth.values)], np.int32 if bits == 16 else np.uint8)
            reading = label_map.interpret(Annotation(stored, levels=2 ** min(bits, 8)), self.num_classes)
            found.update(np.flatnonzero(reading.label_counts).tolist())
        others = {*self.values, *self.unusable_values} if not self.depths else self.unusable_values
        if label_map.colors is None and not self.is_color:
            found.update(label_map.label_of(value, self.num_classes) for value in others)
        return found

    def share(self, pixels: int | np.integer[Any]) -> float:
        """Return the share of all pixels of usable pairs, 0 to 1."""
        return float(pixels) / max(1, int(self.labels.sum()))

    def as_dict(self, names: Mapping[int, str]) -> dict[str, Any]:
        """Return the content for audit.json."""
        return {
            "pairs": self.pairs,
            "opened": self.opened,
            "unusable": len(self.bad),
            "height": self.heights,
            "width": self.widths,
            "gray_annotations": {  # by bits, without those that are all black
                f"{bits} bit": sum(map(len, depth.names.values())) for bits, depth in sorted(self.depths.items())
            },
            "ignored_share": self.share(self.labels[IGNORE]),
            "classes": [
                {
                    "id": label,
                    **({"name": names[label]} if label in names else {}),
                    "pixels": int(self.labels[label]),
                    "share": self.labels[label] / max(1, self.labeled),
                    "images": int(self.images[label]),
                }
                for label in range(self.num_classes)
            ],
            "pixel_values": {self.show(value): pixels for value, pixels in self.values.most_common(256)},
        }

    def show(self, value: int) -> str:
        """Format a pixel value, or a color."""
        if not self.is_color:
            return str(value)
        return color_name(value) if value >= 0 else "other colors"

    def _count_values(self, reading: DecodedLabels, present: Array, others: Mapping[int, int]) -> None:
        self.is_color |= reading.is_color
        columns = (reading.values, reading.counts, reading.labels, reading.unnamed)
        for value, pixels, label, unnamed in zip(*(column[present].tolist() for column in columns), strict=True):
            if value < 0:
                self._count_others(others, pixels)
                continue
            if value not in self.values and len(self.values) >= _VALUES:
                continue
            self.values[value] += pixels
            if unnamed:
                self.unnamed[value] += pixels
            if label == IGNORE:
                self.ignored.add(value)

    def _count_others(self, others: Mapping[int, int], pixels: int) -> None:
        """Count the colors that are not in the map. The pixels that are not in `others` count as −1."""
        kept = {code: count for code, count in others.items() if code in self.values or len(self.values) < _VALUES}
        rest = pixels - sum(kept.values())
        found = {**kept, -1: rest} if rest else kept
        self.values.update(found)
        self.unnamed.update(found)
        self.ignored.update(found)

    def _note_exchange(self, seen: PairInfo, present: Array, others: Mapping[int, int]) -> None:
        """Check whether the colors of a pair match the label map only with red and blue exchanged."""
        named = self.label_map.colors
        if named is None:
            return
        counts = seen.reading.counts
        shown = {int(seen.reading.values[place]): int(counts[place]) for place in present}
        unknown = {**others, **{code: n for code, n in shown.items() if code >= 0 and code not in named}}
        known = {code: n for code, n in shown.items() if code in named and code != TRANSPARENT}
        if find_exchanged(unknown, known, named):
            self.exchanged[seen.name] = set(unknown)
        elif any(exchange(code) != code for code in known):
            self.straight.update(unknown.keys() or {-1})

    def _note_sizes(self, seen: PairInfo) -> None:
        for extremes, side in ((self.heights, seen.height), (self.widths, seen.width)):
            extremes[:] = [min([side, *extremes]), max([side, *extremes])]
        if len(self._sizes) < _VALUES or (seen.height, seen.width) in self._sizes:
            self._sizes[seen.height, seen.width] += 1
        if min(seen.height, seen.width) < self.crop:
            self.small.append(seen.name)
        if seen.is_rotated:
            self.rotated.append(seen.name)
        elif seen.is_ambiguous:
            self.ambiguous.append(seen.name)

    def _note_labels(self, seen: PairInfo, ignored: int) -> None:
        pixels = seen.height * seen.width
        if ignored == pixels:
            self.unlabeled.append(seen.name)
        elif ignored > _MOSTLY * pixels:
            self.mostly_ignored.append(seen.name)

    def _note_palette(self, seen: PairInfo, present: Array) -> None:
        if seen.reading.repaired is not None and seen.reading.repaired[present].any():
            self.repaired.append(seen.name)
        if seen.palette is None or seen.reading.is_color or seen.reading.repaired is not None:
            return  # the colors are used, not the indices
        codes = color_codes(seen.palette)
        unique, counts = np.unique(codes, return_counts=True)
        self.shared_colors.update(unique[counts > 1].tolist())
        if len(present) == len(codes):
            self.packed.add(seen.name)
        for index in present[present < len(codes)].tolist():
            self.palettes.setdefault(index, {}).setdefault(int(codes[index]), []).append(seen.name)


def with_same_map(one: ChannelStatistics, channels: Mapping[str, ChannelStatistics]) -> list[ChannelStatistics]:
    """Return the statistics of all channels that have the same label map as one channel."""
    return [each for each in channels.values() if each.label_map.content == one.label_map.content]


def unusable_annotation(
    error: Exception, name: str, kind: Kind, reading: DecodedLabels | None = None
) -> UnusablePairError:
    """Return the error of a pair for an error of its annotation."""
    if not isinstance(error, UnmappedColorsError):
        return UnusablePairError(f"annotation of {name}: {error}", kind, reading)
    listed = sorted((code for code in error.colors if code < ALPHA), key=lambda code: -error.colors[code])
    shown = shorten_list([*map(color_name, listed)], _SHOWN)
    message = f"annotation of {name}: it is in colors, not class IDs" + (f" ({shown})" if shown else "")
    return UnusablePairError(message, kind, reading, error.colors)
