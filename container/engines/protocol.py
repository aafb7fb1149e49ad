"""What every engine can do; the server knows no more of it than this."""

from __future__ import annotations

from typing import Protocol

from container.arrays import Array, Uint8Array


class Engine(Protocol):
    """A loaded model; may be called from several threads at once."""

    num_classes: int
    precision: str

    def mask(self, image: Uint8Array) -> Array:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        ...

    def probabilities(self, image: Uint8Array) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        ...

    def memory(self, pixels: int) -> int:
        """Return about how many bytes an image of so many pixels takes while it is answered; 0 when unknown."""
        ...

    def warm(self) -> None:
        """Answer once, so that the first request does not pay for what is set up lazily."""
        ...
