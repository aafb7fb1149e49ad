"""The files that MXNet itself writes, on a disk with room and on a full one."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from container.artifact import model_directory
from container.artifact.parameter_file import check_parameter_file
from container.errors import PlatformError
from tests.conftest import SmallDisk

ARRAYS = {
    f"array.{kind}": mx.nd.ones((3, 5), dtype=kind) for kind in ("float32", "float16", "float64", "uint8", "int64")
}


def test_what_mxnet_writes_is_whole(tmp_path: Path) -> None:
    for content in (ARRAYS, list(ARRAYS.values()), mx.nd.ones((1,))):
        model_directory.write_weights(tmp_path / "weights", lambda name, content=content: mx.nd.save(name, content))
        check_parameter_file(tmp_path / "weights")
    with mx.util.np_shape(True):
        mx.nd.save(str(tmp_path / "weights"), [mx.nd.ones((2, 3)), mx.nd.ones(())])
    check_parameter_file(tmp_path / "weights")


def test_a_page_that_mxnet_lost_at_the_end_is_noticed(tmp_path: Path, small_disk: SmallDisk) -> None:
    arrays = {"weight": mx.nd.ones((2**18 - 20,))}  # all but its last page fits: only fclose finds the disk full
    mx.nd.save(str(tmp_path / "whole"), arrays)
    assert 2**20 - 4096 < (tmp_path / "whole").stat().st_size <= 2**20
    with small_disk(tmp_path / "disk", 2**20) as disk:
        (disk / "other").write_bytes(b"a page")
        mx.nd.save(str(disk / "lost"), arrays)  # no error
        assert (disk / "lost").stat().st_size < (tmp_path / "whole").stat().st_size
        (disk / "lost").unlink()
        path = disk / "model_best.params"
        with pytest.raises(
            PlatformError,
            match=rf"^the disk is full: .*{path} could not be written: the file is incomplete after writing",
        ):
            model_directory.write_weights(path, lambda name: mx.nd.save(name, arrays))
        assert [file.name for file in disk.iterdir()] == ["other"]


def test_a_disk_that_fills_up_under_mxnet_is_named(tmp_path: Path, small_disk: SmallDisk) -> None:
    arrays = {"weight": mx.nd.array(np.ones(2**19, np.float32))}
    with small_disk(tmp_path / "disk", 2**20) as disk:
        path = disk / "model_best.params"
        with pytest.raises(PlatformError) as raised:
            model_directory.write_weights(path, lambda name: mx.nd.save(name, arrays))
        assert str(raised.value).startswith("the disk is full: use a larger volume (volume_size). ")
        assert f"{path} could not be written: " in str(raised.value)
        assert str(raised.value).endswith(" bytes, and 1048576 bytes are free.") and "Traceback" not in str(
            raised.value
        )
        with pytest.raises(PlatformError, match=r"it needs 2097152 bytes, and 1048576 are free$"):
            model_directory.write_weights(path, lambda name: mx.nd.save(name, arrays), needed=2**21)
        assert list(disk.iterdir()) == []
