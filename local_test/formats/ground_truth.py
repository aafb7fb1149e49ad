"""Reader of output manifests of SageMaker Ground Truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from container.arrays import Uint8Array
from container.codecs.images import decode_annotation
from container.data.labels.color_maps import ColorMaps, read_color_map
from container.data.labels.label_maps import LabelMap
from container.errors import ClientError
from local_test.formats.regions import MAX_CLASSES, FormatError, Notes
from local_test.manifest import ManifestError, locate, read_lines


def read_ground_truth(
    manifest: Path, mapping: Mapping[str, Path], notes: Notes
) -> tuple[dict[int, str], Iterator[tuple[Path, Uint8Array]]]:
    """Read an output manifest of Ground Truth: class names by ID, and images with their class IDs, uint8 (H, W).

    `mapping` maps S3 prefixes to directories. The masks are read as the training job reads them in Pipe mode. Raises
    FormatError.
    """
    color_maps, rows = ColorMaps(), []
    try:
        for origin, entry in read_lines(manifest):
            labels = [
                key for key in entry if key.endswith("-ref") and key != "source-ref" and f"{key}-metadata" in entry
            ]
            if "source-ref" not in entry or len(labels) != 1:
                notes.counts["lines without a mask (the labeling of the image failed)"] += 1
                continue
            own = read_color_map(json.dumps(entry[f"{labels[0]}-metadata"]).encode(), origin)
            color_map = color_maps.add(own, origin) if own else None
            files = [locate(entry[key], origin, mapping) for key in ("source-ref", labels[0])]
            rows.append((files[0], files[1], color_map))
        if not rows:
            raise FormatError(
                f"{manifest} contains no line with source-ref and a mask. Give the output manifest of the job."
            )
    except (ManifestError, ClientError) as error:
        raise FormatError(str(error)) from error

    def read() -> Iterator[tuple[Path, Uint8Array]]:
        for image, mask, color_map in rows:
            try:
                annotation = decode_annotation(mask.read_bytes())
                yield image, LabelMap().interpret(annotation, MAX_CLASSES, color_map).image().astype(np.uint8)
            except (OSError, ClientError, ValueError) as error:
                raise FormatError(f"{mask} is not readable: {error}") from error

    return dict(color_maps.merged.names), read()
