"""What SageMaker Ground Truth says of its masks: class names and colours, and the repair of wrong indices.

https://docs.aws.amazon.com/sagemaker/latest/dg/sms-data-output.html (semantic segmentation job output)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from container.errors import ClientError

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ColourMap:
    """The classes of an `internal-color-map`: names and colours by class id."""

    names: Mapping[int, str]
    colours: Mapping[int, Colour]

    def as_classes(self) -> list[dict[str, object]]:
        """Describe the classes for `classes.json`, ascending by id."""
        return [
            {"id": index, "name": self.names[index], "color": "#{:02x}{:02x}{:02x}".format(*self.colours[index])}
            for index in sorted(self.names)
        ]

    def repair(self, indices: np.ndarray, palette: np.ndarray) -> np.ndarray:
        """Return the class of each pixel by its colour, where that contradicts its index.

        `indices` are palette indices (H, W), `palette` their RGB colours (n, 3). Masks made between June and
        September 2020 have the right colours under wrong indices. Colours that belong to no class keep their index.
        """
        classes = {colour: index for index, colour in self.colours.items()}
        table = np.arange(256, dtype=np.uint8)
        for index, colour in enumerate(palette[:256]):
            table[index] = classes.get((int(colour[0]), int(colour[1]), int(colour[2])), index)
        return table[indices]


def read_colour_map(record: bytes, name: str) -> ColourMap | None:
    """Read a metadata record's `internal-color-map`; None when it has none. Raises ClientError naming the record."""
    try:
        entries = json.loads(record).get("internal-color-map")
        if not entries:
            return None
        return ColourMap(
            names={int(index): str(entry["class-name"]) for index, entry in entries.items()},
            colours={int(index): _colour(entry["hex-color"]) for index, entry in entries.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClientError(f"{name}: the label's metadata is not readable: {type(error).__name__}: {error}") from error


def _colour(text: str) -> Colour:
    """Parse `#2acf59`."""
    red, green, blue = bytes.fromhex(text.lstrip("#"))
    return red, green, blue
