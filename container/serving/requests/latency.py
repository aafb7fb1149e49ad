"""Estimate of the inference time of an image, learned from earlier requests."""

from __future__ import annotations

_FEW_PIXELS = 2**15  # below, the time is that of any image
_NEWEST = 0.3  # the weight of the newest duration in their moving average


class LatencyEstimator:
    """Knows nothing, and takes any image to be quick, until it has learnt from a first one."""

    def __init__(self) -> None:
        self._each = 0.0
        self._per_pixel = 0.0
        self._fastest = 0.0  # seconds per pixel of the fastest so far: what is refused for good is judged by it

    def learn(self, pixels: int, seconds: float) -> None:
        """Take an image of so many pixels into account, which took so many seconds alone."""
        if pixels < _FEW_PIXELS:
            self._each = _mix(self._each, max(0.0, seconds - pixels * self._per_pixel))
            return
        found = max(0.0, seconds - self._each) / pixels
        self._per_pixel = _mix(self._per_pixel, found)
        self._fastest = min(found, self._fastest or found)

    def estimate(self, pixels: int) -> float:
        """Return the seconds that an image will likely take."""
        return self._each + pixels * self._per_pixel

    def least(self, pixels: int) -> float:
        """Return the seconds that an image takes when all goes as well as it ever has."""
        return pixels * self._fastest


def _mix(known: float, newest: float) -> float:
    return known + _NEWEST * (newest - known) if known else newest
