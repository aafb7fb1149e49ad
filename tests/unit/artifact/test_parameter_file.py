"""Completeness check of parameter files. tests/unit/mx/weights/test_formats.py tests how they are read."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from container.artifact.parameter_file import check_parameter_file


def array(shape: tuple[int, ...], kind: int, item: int) -> bytes:
    """Write one array as MXNet 1.x does: magic, storage, axes, shape, context, type, values."""
    count = 1
    for side in shape:
        count *= side
    header = struct.pack(f"<Iii{len(shape)}qiii", 0xF993FAC9, 0, len(shape), *shape, 1, 0, kind)
    return header + bytes(count * item)


ARRAYS = [array((2, 3), 0, 4), array((5,), 2, 2), array((7,), 6, 8)]
NAMES = [b"conv1.weight", b"conv1.bias", b"updates"]
WHOLE = b"".join(
    [struct.pack("<QQQ", 0x112, 0, 3), *ARRAYS, struct.pack("<Q", 3)] + [struct.pack("<Q", len(n)) + n for n in NAMES]
)


def test_complete_file_passes(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(WHOLE)
    check_parameter_file(tmp_path / "weights")


def test_file_truncated_anywhere_is_rejected(tmp_path: Path) -> None:
    for length in range(len(WHOLE)):
        (tmp_path / "weights").write_bytes(WHOLE[:length])
        with pytest.raises(ValueError, match=f"it is truncated after {length} bytes"):
            check_parameter_file(tmp_path / "weights")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK" + WHOLE[2:], "does not start like an MXNet parameter file"),
        (WHOLE + b"more", "4 bytes follow the last name"),
        (WHOLE[:24] + b"\0" + WHOLE[25:], "it contains an array of an unsupported kind"),
        (b"".join([struct.pack("<QQQ", 0x112, 0, 3), *ARRAYS, struct.pack("<QQ", 1, 0)]), "3 arrays but 1 names"),
    ],
)
def test_other_file_is_rejected_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        check_parameter_file(tmp_path / "weights")


def test_number_of_arrays_is_limited(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(struct.pack("<QQQ", 0x112, 0, 10_001) + bytes(2**18))
    with pytest.raises(ValueError, match="it specifies 10001 arrays, and the limit is 10000"):
        check_parameter_file(tmp_path / "weights")
