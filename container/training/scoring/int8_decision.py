"""Decision whether a job writes an int8 model (`_quantize`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

_SHARE = 0.05  # of the job's time, which `auto` may take
_FIXED_SECONDS = 10.0  # for the graph itself, whatever the images
_CALIBRATION, _SCORING = 24, 1.5  # in times of a float32 answer: all calibration images; an image scored in both graphs


def allowed_seconds(job_seconds: float) -> float:
    """Return how long `auto` may take in a job that has taken so long."""
    return _SHARE * job_seconds


def reason_against(
    quantize: bool | Literal["auto"], job_seconds: float, validation_images: int, time_image: Callable[[], float]
) -> str:
    """Say why the job makes no int8 graph; an empty text when it makes one.

    `job_seconds` is what it has taken so far; `time_image` gives the seconds of one float32 answer on a CPU, and is
    asked only where it matters.
    """
    if quantize is True:
        return ""
    if quantize is False:
        return "_quantize is False"
    allowed, expected = allowed_seconds(job_seconds), _FIXED_SECONDS
    if expected <= allowed:
        expected += time_image() * (_CALIBRATION + _SCORING * validation_images)
    if expected <= allowed:
        return ""
    return (
        f"it would take at least {expected:.0f} s, {_SHARE:.0%} of this job's time are {allowed:.0f} s; "
        "_quantize=True makes it all the same"
    )
