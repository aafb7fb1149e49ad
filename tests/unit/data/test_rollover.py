"""Samples carried over to the next pass: by name where they are listed, with their bytes where they were streamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from container.data.labels.color_maps import ColorMap
from container.data.pipe import PipeSample
from container.data.rollover import pack, unpack
from container.data.samples import FileSample


def listed(root: str) -> list[FileSample]:
    return [FileSample(Path(root, name), Path("/annotations", name)) for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg")]


def test_files_are_found_again_wherever_the_channel_lies(tmp_path: Path) -> None:
    before, now = listed("/opt/ml/train"), listed("/elsewhere")
    packed = pack([before[2], before[0]], before, tmp_path / "samples.rec")
    assert packed == [{"listed": "b/1.jpg"}, {"listed": "a/1.jpg"}]
    assert unpack(packed, now, tmp_path / "samples.rec") == [now[2], now[0]]
    assert not (tmp_path / "samples.rec").exists()
    with pytest.raises(KeyError, match="b/1"):
        unpack(packed, now[:2], tmp_path / "samples.rec")


def test_records_of_a_stream_are_kept(tmp_path: Path) -> None:
    magic = b"\x0a\x23\xd7\xce"  # RecordIO's own mark within a record
    colors = ColorMap(names={0: "ground", 7: "square"}, colors={0: (0, 0, 0), 7: (255, 128, 0)})
    samples = [PipeSample("record 5", b"image" + magic * 3, b""), PipeSample("record 1", b"x" * 7, magic, colors)]
    packed = pack(samples, None, tmp_path / "samples.rec")
    assert unpack(packed, None, tmp_path / "samples.rec") == samples


def test_nothing_carried_needs_no_file(tmp_path: Path) -> None:
    assert pack([], None, tmp_path / "samples.rec") == [] == unpack([], None, tmp_path / "samples.rec")
    assert list(tmp_path.iterdir()) == []
