"""Comparison of `base_size` with the size of the images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

import numpy as np

from container.data.audit.issues import Issue, percent
from container.data.audit.statistics import ChannelStatistics
from container.data.augmentation_config import parse_augmentation
from container.hyperparameters import Hyperparameters
from container.schema import read_schema

SCALE = "scale"  # kind of the warning that the report shows first

_TOLERANCE = 1.25  # factor outside of the training scales at which models still work
_LEAST_SHARE = 0.1  # of the images or of the pixels
_PADDED = 0.5  # of a training crop
_LEAST_COVERED = 0.05  # of an image by a crop
_STEPS = 64  # half the number of scale factors for the mean padding
_CROP_STEP, _LEAST_CROP = 8, 24  # pixels; crop sides are multiples of 8
_LISTED = 10  # sizes in the details

Sizes = Mapping[tuple[int, int], int]  # images by (height, width)
Range = tuple[float, float]


def find_scale(statistics: ChannelStatistics, job: Hyperparameters) -> Iterator[Issue]:
    """Warn if training does not use the images at about their own size, or if most of a crop is padding."""
    sizes = statistics.sizes
    if not sizes:
        return
    factors = parse_augmentation(job.augmentation).scale
    outside = _outside(sizes, job.base_size, factors)
    images, pixels = _count(outside) / _count(sizes), _pixels(outside) / _pixels(sizes)
    if max(images, pixels) >= _LEAST_SHARE:
        yield _warn_of_scale(statistics.channel, sizes, outside, job, factors)
        return
    padding, crop = padding_share(sizes, job.base_size, job.crop, factors), _fitting_crop(sizes, job.base_size)
    if padding > _PADDED and crop < job.crop and not statistics.small:
        sides = [round(job.base_size * factor) for factor in factors]
        yield Issue(
            "padding",
            f"channel {statistics.channel}: {percent(padding)} of a training crop is padding, because base_size="
            f"{job.base_size} scales the long side of an image to {sides[0]} to {sides[1]} pixels, and crop_size is "
            f"{job.crop_size}. Train with crop_size={crop}",
        )


def find_small(statistics: ChannelStatistics, job: Hyperparameters) -> Iterator[Issue]:
    """Warn of images that are smaller than the crop."""
    if not statistics.small:
        return
    padded = ""
    if statistics.channel == "train":
        padding = padding_share(statistics.sizes, job.base_size, job.crop, parse_augmentation(job.augmentation).scale)
        padded = f" ({percent(padding)} of a training crop is padding)"
    remedy = ". A smaller crop_size can be better" if job.crop > _LEAST_CROP else ""
    yield Issue(
        "small",
        f"channel {statistics.channel}: {len(statistics.small)} of {statistics.opened} images are smaller than the "
        f"crop of {statistics.crop} pixels and are scaled up or padded{padded}{remedy}",
        tuple(statistics.small),
    )


def padding_share(sizes: Sizes, base_size: int, crop: int, factors: Range) -> float:
    """Return the mean share of padding in a training crop, 0 to 1."""
    steps = np.linspace(*factors, 2 * _STEPS + 1)[1::2]
    covered = 0.0
    for (height, width), count in sizes.items():
        scales = base_size * steps / max(height, width)
        covered += count * float((np.minimum(crop, height * scales) * np.minimum(crop, width * scales)).mean())
    return 1 - covered / (crop**2 * _count(sizes))


def _warn_of_scale(channel: str, sizes: Sizes, outside: Sizes, job: Hyperparameters, factors: Range) -> Issue:
    sides = sorted(max(size) for size in outside)
    scales = [factors[0] * job.base_size / sides[-1], factors[1] * job.base_size / sides[0]]
    padding = padding_share(sizes, job.base_size, job.crop, factors)
    which = "the images" if len(outside) == len(sizes) else f"{_count(outside)} of {_count(sizes)} images"
    share = "" if len(outside) == len(sizes) else f", {percent(_pixels(outside) / _pixels(sizes))} of all pixels"
    side = f"{sides[0]}" if sides[0] == sides[-1] else f"{sides[0]} to {sides[-1]}"
    return Issue(
        SCALE,
        f"channel {channel}: training scales {which} (long side {side} pixels{share}) by {scales[0]:.2g} to "
        f"{scales[1]:.2g}, because base_size is {job.base_size}. Full-resolution evaluation and inference do not scale "
        f"images, so objects have a size there that the model has not learned. {percent(padding)} of a training crop "
        f"is padding. {_remedy(sizes, outside, job, factors)}",
        tuple(
            f"{width} × {height} pixels: {count} image{'s' if count > 1 else ''}, scaled by "
            f"{factors[0] * job.base_size / max(height, width):.2g} to "
            f"{factors[1] * job.base_size / max(height, width):.2g}"
            for (height, width), count in Counter(outside).most_common(_LISTED)
        ),
    )


def _remedy(sizes: Sizes, outside: Sizes, job: Hyperparameters, factors: Range) -> str:
    """Return which values to set, and what to do with images that do not fit any value."""
    best = _best_base(sizes, factors)
    left = _outside(sizes, best, factors)
    if _count(left) >= _count(outside):
        return f"Scale {_such_images(outside, job.base_size)}"
    settings = f"base_size={best}"
    if padding_share(sizes, best, job.crop, factors) > _PADDED and (crop := _fitting_crop(sizes, best)) < job.crop:
        settings += f" and crop_size={crop}"
    steps = f"Train with {settings}"
    covered = (
        _count(sizes) * job.crop**2 / sum(count * best**2 * min(size) / max(size) for size, count in sizes.items())
    )
    if covered < _LEAST_COVERED:
        crop = min(read_schema()["properties"]["crop_size"]["default"], _fitting_crop(sizes, best))
        example = f", for example to {crop}," if crop > job.crop else ""
        steps += f" (a crop then covers {percent(covered)} of an image, so raise crop_size{example} or epochs, too)"
    if not left:
        is_large = min(max(size) for size in outside) > job.base_size
        return steps + (f", or scale {_such_images(outside, job.base_size)}" if is_large else "")
    count = _count(left)
    remain = f"{count} {'images then remain' if count > 1 else 'image then remains'} outside of the range"
    return f"{steps}. {remain}: scale {_such_images(left, best)}"


def _such_images(outside: Sizes, base_size: int) -> str:
    are_large = all(max(size) > base_size for size in outside)
    tiles = ", or cut them into tiles of that size" if are_large else ""
    return f"these images to a long side of about {base_size} pixels for training and inference{tiles}"


def _outside(sizes: Sizes, base_size: int, factors: Range) -> Sizes:
    """Return the sizes of images that training never uses at about their own size."""

    def is_outside(side: int) -> bool:
        low, high = (factor * base_size / side for factor in factors)
        return low > _TOLERANCE or high < 1 / _TOLERANCE

    return {size: count for size, count in sizes.items() if is_outside(max(size))}


def _best_base(sizes: Sizes, factors: Range) -> int:
    """Return the `base_size` for the most images; of equal ones, the nearest to the median of the long sides."""
    sides: Counter[int] = Counter()
    for size, count in sizes.items():
        sides[max(size)] += count
    middle = math.sqrt(factors[0] * factors[1])
    median = _median(sides.items())
    least = int(read_schema()["properties"]["base_size"]["exclusiveMinimum"]) + 1
    candidates = {max(least, round(side / middle)) for side, _ in sides.most_common(_STEPS)}
    candidates.add(max(least, round(median / middle)))
    return min(candidates, key=lambda base: (_count(_outside(sizes, base, factors)), abs(base * middle - median), base))


def _fitting_crop(sizes: Sizes, base_size: int) -> int:
    """Return the crop side that the median image fills at `base_size`, a multiple of 8."""
    shorter: Counter[int] = Counter()
    for size, count in sizes.items():
        shorter[max(1, base_size * min(size) // max(size))] += count
    return max(_LEAST_CROP, _median(shorter.items()) // _CROP_STEP * _CROP_STEP)


def _median(counts: Iterable[tuple[int, int]]) -> int:
    """Return the weighted median of pairs of value and weight."""
    values, weights = zip(*sorted(counts), strict=True)
    half = sum(weights) / 2
    return int(next(value for value, total in zip(values, accumulate(weights), strict=True) if total >= half))


def _count(sizes: Sizes) -> int:
    return sum(sizes.values())


def _pixels(sizes: Sizes) -> int:
    return sum(height * width * count for (height, width), count in sizes.items())
