"""The int8 model (`_quantize`): all rules of the decision, and quantization in a child process.

A job writes the int8 model if `reason_to_skip` has no objection, saves it if `is_accurate`, and approves it for serving
with SERVE_PRECISION=auto if `is_approved`.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import cv2

from container.arrays import Array
from container.artifact import model_directory
from container.data.full_images import LabeledImage
from container.data.loader import Loader
from container.errors import AlgorithmError, ClientError, JobCancelledError
from container.training.scoring.evaluation import EvaluationResult

_SHARE = 0.05  # of the training time, which `auto` can use
_FIXED_SECONDS = 10.0  # for the quantization itself, with any images
# In multiples of the float32 inference time of an image: all calibration images; one image with both models.
_CALIBRATION, _COMPARISON = 24, 1.5
_ENOUGH_IMAGES = 50  # validation images for the approval, if the time does not suffice for all

_CALIBRATION_IMAGES = 16
_LONG_SIDE = 520  # to which larger images are scaled: about the scale of the training crops
_MAX_PIXELS = 2**26  # of an image that is decoded for calibration
_POLL_SECONDS = 0.1


def comparison_seconds(job_seconds: float) -> float:
    """Return how many seconds `auto` can use in a job that trained for `job_seconds`."""
    return _SHARE * job_seconds


def reason_to_skip(
    quantize: bool | Literal["auto"], job_seconds: float, validation_images: int, time_image: Callable[[], float]
) -> str:
    """Return why the job writes no int8 model; an empty string if it writes one.

    `job_seconds` is the training time. `time_image` returns the seconds of one float32 inference on the CPUs. It is
    called only if the result depends on it.
    """
    if quantize is True:
        return ""
    if quantize is False:
        return "_quantize is False"
    allowed, expected = comparison_seconds(job_seconds), _FIXED_SECONDS
    if expected <= allowed:
        expected += time_image() * (_CALIBRATION + _COMPARISON * validation_images)
    if expected <= allowed:
        return ""
    return (
        f"it takes at least {expected:.0f} s, and {_SHARE:.0%} of the training time is {allowed:.0f} s. Set "
        "_quantize=True to write it anyway"
    )


def is_accurate(result: EvaluationResult, tolerance: float) -> bool:
    """Return whether the mIOU of the second model, int8, is at most `tolerance` lower than that of the first."""
    float32, int8 = (confusion.miou for confusion in result.confusions)
    return bool(float32 - int8 <= tolerance)


def is_approved(result: EvaluationResult) -> bool:
    """Return whether enough images were compared to serve an accurate int8 model by default."""
    return result.complete or len(result.evaluated) >= _ENOUGH_IMAGES


def quantize(model: Path, train: Loader, scratch: Path, stop: threading.Event) -> Path:
    """Write the int8 form of the ONNX model into `scratch`, calibrated on training images, and return its path.

    Raises JobCancelledError when `stop` is set.
    """
    folder = scratch / "images"
    folder.mkdir()
    for number, image in enumerate(itertools.islice(_calibration_images(train, stop), _CALIBRATION_IMAGES)):
        cv2.imwrite(str(folder / f"{number}.png"), image[:, :, ::-1])
    target = scratch / model_directory.INT8_GRAPH
    command = [sys.executable, "-m", "container.engines.quantize", str(model.parent), str(folder)]
    _run([*command, "--target", str(target)], scratch / "errors", stop)
    return target


def _calibration_images(train: Loader, stop: threading.Event) -> Iterator[Array]:
    """Yield training images, uint8 RGB, scaled down if they are large; unusable images are skipped, as in training."""
    for image in train.full_images(lambda pixels: "are too many" if pixels > _MAX_PIXELS else None, 1, stop):
        if isinstance(image, LabeledImage):
            scale = min(1.0, _LONG_SIDE / max(image.labels.shape))
            size = [max(1, round(side * scale)) for side in image.labels.shape[::-1]]
            yield cv2.resize(image.image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image.image


def _run(command: list[str], errors: Path, stop: threading.Event) -> None:
    """Run the command until it ends; when `stop` is set, kill it and raise JobCancelledError."""
    with errors.open("wb") as log:
        child = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL, stderr=log)
    while True:
        try:
            code = child.wait(_POLL_SECONDS)
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
        raise AlgorithmError(f"the quantization process failed: {reason}")
