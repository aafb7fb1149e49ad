"""RecordIO both ways against MXNet's own implementation, the format's reference."""

from __future__ import annotations

import os
from pathlib import Path

import mxnet as mx
import pytest

from container.codecs.recordio import frame, read_records

MAGIC = bytes.fromhex("0a23d7ce")
PAYLOADS = {
    "one byte": b"x",
    "multiple of four": b"12345678",
    "all bytes": bytes(range(256)) * 5,
    "only magic": MAGIC,
    "magic first": MAGIC + b"rest",
    "magic last": b"1234" + MAGIC,
    "magic in the middle": b"1234" + MAGIC + b"56",
    "magic twice in a row": b"1234" + MAGIC + MAGIC + b"5",
    "magic off the grid": b"1" + MAGIC + b"23" + MAGIC + b"4",
    "magic with a tail of three": MAGIC + b"abc",
    "large": os.urandom(300_001),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_bytes_are_those_that_mxnet_writes(payload: bytes, tmp_path: Path) -> None:
    writer = mx.recordio.MXRecordIO(str(tmp_path / "mxnet.rec"), "w")
    writer.write(payload)
    writer.close()
    assert b"".join(frame(payload)) == (tmp_path / "mxnet.rec").read_bytes()


def test_mxnet_reads_what_is_framed(tmp_path: Path) -> None:
    path = tmp_path / "ours.rec"
    path.write_bytes(b"".join(buffer for payload in PAYLOADS.values() for buffer in frame(payload)))
    reader = mx.recordio.MXRecordIO(str(path), "r")
    assert [reader.read() for _ in PAYLOADS] == list(PAYLOADS.values())
    assert reader.read() is None


def test_what_mxnet_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mxnet.rec"
    writer = mx.recordio.MXRecordIO(str(path), "w")
    for payload in PAYLOADS.values():
        writer.write(payload)
    writer.close()
    with path.open("rb") as stream:
        assert list(read_records(stream)) == list(PAYLOADS.values())
