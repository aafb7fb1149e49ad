"""Small labeled data set that a model learns in minutes on a CPU: textured shapes on a textured background."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from container.arrays import Array
from local_test.overlay import color_mask

CLASSES = ("background", "circle", "square", "triangle", "cross")
CHANNELS = ("train", "train_annotation", "validation", "validation_annotation")

# Hyperparameters of the demo job. All others have their defaults.
HYPERPARAMETERS: Mapping[str, Any] = {
    "num_classes": len(CLASSES),
    "algorithm": "fcn",
    "backbone": "resnet-50",
    "use_pretrained_model": False,
    "base_size": 128,
    "crop_size": 96,
    "epochs": 7,
    "mini_batch_size": 4,
    "validation_mini_batch_size": 8,
    "optimizer": "adam",
    "learning_rate": 0.0005,
    "_logging_frequency": 10,
    "_seed": 1,
}


@dataclasses.dataclass(frozen=True)
class Appearance:
    """Appearance of one class: mean color (RGB, 0 to 255), and pattern as a function of two phases in radians."""

    color: tuple[int, int, int]
    pattern: Callable[[Array, Array], Array]


_APPEARANCES = (
    Appearance((128, 124, 116), lambda u, v: np.zeros_like(u)),
    Appearance((204, 60, 52), lambda u, v: np.sin(u) * np.sin(v)),
    Appearance((52, 88, 204), lambda u, v: np.sin(u)),
    Appearance((60, 172, 64), lambda u, v: np.sign(np.sin(u) * np.sin(v))),
    Appearance((220, 184, 44), lambda u, v: np.sign(np.sin(u))),
)


def draw_sample(rng: np.random.Generator, width: int, height: int) -> tuple[Array, Array]:
    """Draw one image, uint8 RGB (H, W, 3), and its class IDs, uint8 (H, W)."""
    labels = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(labels)
    for label in rng.permutation(np.arange(1, len(CLASSES)))[: rng.integers(2, len(CLASSES))]:
        radius = rng.uniform(0.2, 0.32) * min(width, height)
        center = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        draw.polygon(_outline(CLASSES[label], center, radius, rng.uniform(0, 2 * math.pi)), fill=int(label))
    ids = np.asarray(labels)
    image = np.zeros((height, width, 3))
    for label, ground in enumerate(_APPEARANCES):
        image[ids == label] = _texture(rng, ground, width, height)[ids == label]
    image += rng.normal(0, 8, image.shape)
    image *= rng.uniform(0.85, 1.1)  # the light differs from image to image
    return image.clip(0, 255).astype(np.uint8), ids


def write_samples(data: Path, channel: str, count: int, size: tuple[int, int], seed: int) -> None:
    """Write `count` pairs of JPEG and palette PNG to the directories `channel` and `channel`_annotation.

    `size` is (width, height). The same seed creates the same images.
    """
    rng = np.random.default_rng([seed, CHANNELS.index(channel)])
    images, annotations = data / channel, data / f"{channel}_annotation"
    for folder in (images, annotations):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, ids = draw_sample(rng, *size)
        Image.fromarray(image).save(images / f"{channel}_{number:04}.jpg", quality=92)
        color_mask(Image.fromarray(ids)).save(annotations / f"{channel}_{number:04}.png")


def write_job(root: Path, samples: int, changes: Mapping[str, str]) -> None:
    """Write the configuration of a job to `root`, as SageMaker AI does: every hyperparameter is a string."""
    hyperparameters = {**HYPERPARAMETERS, "num_training_samples": samples, **changes}
    channel = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    config = root / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "hyperparameters": {name: str(value) for name, value in hyperparameters.items()},
        "resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
        "inputdataconfig": {
            name: {**channel, "ContentType": "image/png" if name.endswith("_annotation") else "image/jpeg"}
            for name in CHANNELS
        }
        | {"label_map": {**channel, "ContentType": "application/json"}},
    }.items():
        (config / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (root / "classes.json").write_text(json.dumps(CLASSES) + "\n", encoding="utf-8")
    label_map = root / "input" / "data" / "label_map"
    label_map.mkdir(parents=True, exist_ok=True)
    for name in ("train", "validation"):
        (label_map / f"{name}_label_map.json").write_text(json.dumps({"scale": 1, "names": CLASSES}) + "\n", "utf-8")


def main() -> None:
    """Write the data set and the configuration of the job to a directory with the layout of /opt/ml."""
    parser = argparse.ArgumentParser(prog="python -m local_test.demo_data", description=__doc__)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory with the layout of /opt/ml"
    )
    parser.add_argument("--train", type=int, default=120, metavar="N", help="number of training images (%(default)s)")
    parser.add_argument(
        "--validation", type=int, default=24, metavar="N", help="number of validation images (%(default)s)"
    )
    parser.add_argument("--size", default="160x128", metavar="WxH", help="size in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images (%(default)s)")
    parser.add_argument("hyperparameters", nargs="*", metavar="NAME=VALUE", help="hyperparameters to change")
    arguments = parser.parse_args()
    width, cross, height = arguments.size.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 16):
        parser.error(
            f"--size {arguments.size} is not valid. Write width and height in pixels, at least 16, such as 160x128"
        )
    if min(arguments.train, arguments.validation) < 1:
        parser.error("--train and --validation must be at least 1")
    if wrong := [text for text in arguments.hyperparameters if not text.partition("=")[1]]:
        parser.error(f"{wrong[0]} is not valid. Write hyperparameters as NAME=VALUE")
    changes = dict(text.split("=", 1) for text in arguments.hyperparameters)
    for channel, count in (("train", arguments.train), ("validation", arguments.validation)):
        write_samples(arguments.output / "input" / "data", channel, count, (int(width), int(height)), arguments.seed)
    write_job(arguments.output, arguments.train, changes)


def _outline(shape: str, center: tuple[float, float], radius: float, turn: float) -> list[tuple[float, float]]:
    """Return the corners of a shape, rotated by `turn` radians. All shapes with one radius have similar areas."""
    radius *= {"circle": 0.85, "square": 1.05, "triangle": 1.3, "cross": 1.0}[shape]
    if shape == "cross":
        arm = 0.4
        corners = [(1, arm), (arm, arm), (arm, 1), (-arm, 1), (-arm, arm), (-1, arm)]
        corners += [(-x, -y) for x, y in corners]
    else:
        count = {"circle": 40, "square": 4, "triangle": 3}[shape]
        corners = [(math.cos(2 * math.pi * k / count), math.sin(2 * math.pi * k / count)) for k in range(count)]
    cos, sin = radius * math.cos(turn), radius * math.sin(turn)
    return [(center[0] + x * cos - y * sin, center[1] + x * sin + y * cos) for x, y in corners]


def _texture(rng: np.random.Generator, appearance: Appearance, width: int, height: int) -> Array:
    """Draw the texture of one class, float (H, W, 3). Hue, brightness, wavelength, and direction are random."""
    y, x = np.mgrid[:height, :width]
    angle, step = rng.uniform(0, math.pi), 2 * math.pi / rng.uniform(7, 12)
    u = step * (x * math.cos(angle) + y * math.sin(angle))
    v = step * (y * math.cos(angle) - x * math.sin(angle))
    color = np.array(appearance.color) * rng.uniform(0.85, 1.15) + rng.normal(0, 6, 3)
    coarse = Image.fromarray(rng.uniform(-24, 24, (6, 8)).astype(np.float32))
    clouds = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.asarray(color + (28 * appearance.pattern(u, v) + clouds)[:, :, None])


if __name__ == "__main__":
    main()
