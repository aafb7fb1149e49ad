"""Quantization in a child process."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2

from container.arrays import Array
from container.artifact import model_directory
from container.data.full_images import LabeledImage
from container.data.loader import Loader
from container.errors import AlgorithmError, ClientError, JobCancelledError

_CALIBRATION_IMAGES = 16
_LONG_SIDE = 520  # to which larger images are scaled: about what the network was trained on
_MAX_PIXELS = 2**26  # of an image that is decoded for this
_SLICE_SECONDS = 0.1  # how soon the wait notices that the graph is no longer wanted


def quantize(graph: Path, train: Loader, scratch: Path, stop: threading.Event) -> Path:
    """Write the int8 form of `graph` into `scratch`, calibrated on training images, and return its path.

    Raises Cancelled once `stop` is set.
    """
    photographs = scratch / "photographs"
    photographs.mkdir()
    for number, image in enumerate(itertools.islice(_images(train, stop), _CALIBRATION_IMAGES)):
        cv2.imwrite(str(photographs / f"{number}.png"), image[:, :, ::-1])
    target = scratch / model_directory.INT8_GRAPH
    command = [sys.executable, "-m", "container.engines.quantize", str(graph.parent), str(photographs)]
    _run([*command, "--target", str(target)], scratch / "errors", stop)
    return target


def _images(train: Loader, stop: threading.Event) -> Iterator[Array]:
    """Give training images, uint8 RGB, large ones scaled down; what is unusable is passed over, as in training."""
    for picture in train.pictures(lambda pixels: "are too many" if pixels > _MAX_PIXELS else None, 1, stop):
        if isinstance(picture, LabeledImage):
            scale = min(1.0, _LONG_SIDE / max(picture.labels.shape))
            size = [max(1, round(side * scale)) for side in picture.labels.shape[::-1]]
            yield cv2.resize(picture.image, size, interpolation=cv2.INTER_AREA) if scale < 1 else picture.image


def _run(command: list[str], errors: Path, stop: threading.Event) -> None:
    """Run the command to its end; kill it and raise Cancelled once `stop` is set."""
    with errors.open("wb") as log:
        child = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL, stderr=log)
    while True:
        try:
            code = child.wait(_SLICE_SECONDS)
            break
        except subprocess.TimeoutExpired:
            if stop.is_set():
                child.kill()
                child.wait()
                raise JobCancelledError from None
    if stop.is_set():
        raise JobCancelledError
    if code:
        lines = errors.read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {code}"
        if reason.startswith("ClientError: "):
            raise ClientError(reason.removeprefix("ClientError: "))
        raise AlgorithmError(f"the process that quantizes ended: {reason}")
