"""Decoding of one sample: image, labels, EXIF orientation, and information for the audit."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import NamedTuple

import numpy as np

from container.arrays import Uint8Array
from container.codecs.images import (
    DecodeError,
    Header,
    Orientation,
    TruncatedImageError,
    Warn,
    decode_16_bit,
    decode_annotation,
    decode_image,
    decode_reduced,
    read_header,
)
from container.codecs.images_16_bit import count_samples
from container.data.audit.duplicates import digest_pixels
from container.data.audit.statistics import PairInfo, UnusablePairError, unusable_annotation
from container.data.labels.color_maps import color_codes
from container.data.labels.label_maps import LabelMap
from container.data.pairing import FileSample
from container.data.samples import Sample
from container.errors import ClientError, JobError, PlatformError
from container.image_range import Range

_MAX_PIXELS = 2**28
_TRANSPARENT = (
    'some pixels are transparent and are read by their color. To ignore them, add "transparent": 255 to the colors of '
    "the label map"
)


class Decoded(NamedTuple):
    """Decoded pair: uint8 RGB (H, W, 3), uint8 labels (H, W), number of pixels that are not in the label map."""

    image: Uint8Array
    labels: Uint8Array
    unnamed: int
    seen: PairInfo


def decode_sample(
    sample: Sample,
    label_map: LabelMap,
    num_classes: int,
    exif_orientation: str = "auto",
    digest: bool = False,
    image_range: Range | None = None,
) -> Decoded:
    """Decode a pair to uint8 RGB (H, W, 3) and uint8 labels (H, W); `image_range` is for 16-bit images.

    `exif_orientation` is "apply" (rotate the image by its EXIF orientation), "ignore" (use the order of the file), or
    "auto" (rotate the image if it has the size of the annotation only then). `digest` specifies whether the information
    contains a digest of the pixels. Raises UnusablePairError that contains the name of the sample.
    """
    seen, encoded_image, header, rotation = _read_pair(sample, label_map, num_classes, exif_orientation)
    notes: list[str] = []
    try:
        image = decode_image(
            encoded_image, orientation=rotation, warn=notes.append, header=header, image_range=image_range
        )
    except DecodeError as error:
        raise _decode_error(sample, error) from error
    _check_labels(seen, num_classes)
    seen = dataclasses.replace(seen, notes=(*seen.notes, *notes))
    if digest and header.bits == 16:
        seen = _add_samples(seen, encoded_image, header)
    elif digest:  # of the pixels in the order of the file
        stored = (
            decode_image(encoded_image, header=header) if rotation == "apply" and header.orientation != 1 else image
        )
        seen = dataclasses.replace(seen, digest=digest_pixels(b"R", header.shape(), stored))
    return Decoded(image, seen.reading.image(), seen.reading.ignored, seen)


def examine_sample(sample: Sample, label_map: LabelMap, num_classes: int, exif_orientation: str) -> PairInfo:
    """Return the information about a pair, faster than `decode_sample`: JPEGs are decoded at an eighth of their size.

    Raises UnusablePairError that contains the name of the sample.
    """
    seen, encoded_image, header, _ = _read_pair(sample, label_map, num_classes, exif_orientation)
    notes: list[str] = []
    digest: bytes | None
    try:
        if header.format == "JPEG":
            digest = digest_pixels(b"J", header.shape(), decode_reduced(encoded_image, header, warn=notes.append))
        elif header.bits == 16:
            seen = _add_samples(seen, encoded_image, header, warn=notes.append)
            digest = seen.digest
        else:
            image = decode_image(encoded_image, warn=notes.append, header=header)
            digest = digest_pixels(b"R", header.shape(), image)
    except DecodeError as error:
        raise _decode_error(sample, error) from error
    seen = dataclasses.replace(seen, notes=(*seen.notes, *notes), digest=digest)
    _check_labels(seen, num_classes)
    return seen


def _add_samples(seen: PairInfo, encoded_image: bytes, header: Header, *, warn: Warn | None = None) -> PairInfo:
    """Add the digest and the sample counts of a 16-bit image; raises DecodeError."""
    samples = decode_16_bit(encoded_image, header, warn=warn)
    digest = digest_pixels(b"R", header.shape(), samples)
    return dataclasses.replace(seen, digest=digest, sample_counts=count_samples(samples))


def _read_pair(
    sample: Sample, label_map: LabelMap, num_classes: int, exif_orientation: str
) -> tuple[PairInfo, bytes, Header, Orientation]:
    """Read a pair, and decode only its annotation.

    Also returns the encoded image, its header, and the rotation to apply.
    """
    name = sample.name
    notes: list[str] = []
    try:
        encoded_image, encoded_annotation = sample.read()
        header = read_header(encoded_image, _MAX_PIXELS)
    except OSError as error:
        raise _read_error(sample, error) from error
    except DecodeError as error:
        raise _decode_error(sample, error) from error
    if encoded_image == encoded_annotation:
        raise UnusablePairError(f"{name} and its annotation are the same file. Replace it with the input image", "same")
    try:
        annotation = decode_annotation(encoded_annotation, warn=notes.append)
    except DecodeError as error:
        raise unusable_annotation(error, name, "unreadable") from error
    if annotation.alpha is not None and not label_map.maps_transparent:
        notes.append(_TRANSPARENT)
    rotation: Orientation = "apply" if exif_orientation == "apply" else "ignore"
    size = annotation.shape
    if exif_orientation == "auto" and header.shape() != size == header.shape("apply"):
        rotation = "apply"
    if header.shape(rotation) != size:
        raise _size_error(name, header, rotation, size)
    try:
        reading = label_map.interpret(annotation, num_classes, sample.color_map)
    except ClientError as error:
        raise unusable_annotation(error, name, "colour") from error
    is_rotated = header.orientation != 1
    seen = PairInfo(
        name,
        *size,
        reading,
        annotation.palette,
        is_rotated=is_rotated and rotation == "apply",
        is_ambiguous=is_rotated
        and rotation == "ignore"
        and exif_orientation == "auto"
        and header.shape("apply") == size,
        notes=tuple(notes),
    )
    return seen, encoded_image, header, rotation


def _check_labels(seen: PairInfo, num_classes: int) -> None:
    try:
        seen.reading.check(num_classes)
    except ClientError as error:
        bad = unusable_annotation(error, seen.name, "label", seen.reading)
        if seen.palette is not None and np.count_nonzero(seen.reading.counts) == len(seen.palette):
            codes = color_codes(seen.palette)
            bad.wrong_colors = {value: int(codes[value]) for value in bad.wrong if value < len(codes)}
        raise bad from error


def _read_error(sample: Sample, error: OSError) -> JobError:
    """Return the error for a file that cannot be read."""
    message = f"{error.filename or sample.name} cannot be read: {error.strerror or error}"
    if error.errno == errno.ENOENT:
        return UnusablePairError(f"{message}. Do not change the data while the job runs", "unreadable")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR):
        return UnusablePairError(f"{message}. Make sure that the job has permission to read it", "unreadable")
    return PlatformError(f"{message}. The cause is the disk or its storage. Start the job again")


def _decode_error(sample: Sample, error: DecodeError) -> UnusablePairError:
    return UnusablePairError(f"{sample.name}: {error}. Replace or remove it", "unreadable")


def check_headers(sample: FileSample, exif_orientation: str) -> None:
    """Read only the headers of both files; raises UnusablePairError if one is invalid, or if their sizes differ."""
    rotations: tuple[Orientation, ...] = ("ignore", "apply") if exif_orientation == "auto" else ("ignore",)
    if exif_orientation == "apply":
        rotations = ("apply",)
    try:
        image, annotation = (_read_header(path, head) for path, head in sample.read_heads())
        if annotation.shape() not in {image.shape(rotation) for rotation in rotations}:
            image = _read_header(sample.image, sample.read()[0])  # a PNG can contain its orientation at its end
    except OSError as error:
        raise _read_error(sample, error) from error
    if annotation.shape() not in {image.shape(rotation) for rotation in rotations}:
        raise _size_error(sample.name, image, rotations[-1] if len(rotations) == 1 else "ignore", annotation.shape())


def _read_header(path: Path, head: bytes) -> Header:
    """Read a header from the first bytes of a file, or from the full file if that is not sufficient."""
    try:
        try:
            return read_header(head)
        except TruncatedImageError:
            return read_header(path.read_bytes())
    except DecodeError as error:
        raise UnusablePairError(f"{path}: {error}. Replace or remove it", "unreadable") from error


def _size_error(name: str, header: Header, rotation: Orientation, annotation: tuple[int, int]) -> UnusablePairError:
    height, width = header.shape(rotation)
    sizes = f"the image has {width}×{height} pixels, but the annotation has {annotation[1]}×{annotation[0]}"
    if header.orientation != 1:
        sizes += (
            f" (its EXIF orientation is {header.orientation}, and _exif_orientation specifies whether it is rotated)"
        )
    return UnusablePairError(f"annotation of {name}: {sizes}", "size")
