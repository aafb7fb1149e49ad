"""The range of 16-bit images that `_image_range` scales to 8 bits."""

from __future__ import annotations

import re

Range = tuple[int, int]  # the samples that become 0 and 255


def parse_range(text: str) -> Range:
    """Parse `0,4095`; raises ValueError."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*,\s*(\d{1,5})\s*", text)
    low, high = map(int, match.groups()) if match else (0, 0)
    if not low < high <= 65535:
        raise ValueError(f"{text!r} is not a range: two integers from 0 to 65535, the lower one first")
    return low, high
