"""Memory that MXNet needs for an image."""

from __future__ import annotations

# Measured with VmHWM on the CPU, 800×800, resnet-50: fcn 732 bytes per pixel with 21 classes and 1248 with 150,
# deeplab 873 and psp 1060 with 21; fastscnn 238 with 21 and 752 with 150. Each class needs four of these bytes, for the
# logits at full resolution.
_BYTES_PER_PIXEL = {"fcn": 700, "deeplab": 850, "psp": 1050, "fastscnn": 160}
_BYTES_PER_CLASS = 4.4
_FIXED_BYTES = 2**27


def image_bytes(algorithm: str, num_classes: int, pixels: int) -> int:
    """Return an estimate of the bytes for one image on the device, in addition to the weights."""
    return _FIXED_BYTES + int((_BYTES_PER_PIXEL[algorithm] + _BYTES_PER_CLASS * num_classes) * pixels)
