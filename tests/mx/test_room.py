"""Room for the model directory: as much as the files turn out to take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from container.errors import PlatformError
from container.mx.disk_estimate import check_checkpoint_room, check_disk_space, weight_bytes
from container.mx.export import export_onnx
from tests.conftest import SmallDisk
from tests.mx.test_export import build_network

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")


def test_what_is_asked_for_is_what_the_files_take(tmp_path: Path, small_disk: SmallDisk) -> None:
    network = build_network("psp")
    weights, graph = tmp_path / "model_best.params", tmp_path / "model.onnx"
    network.save_parameters(str(weights))
    export_onnx(network, graph)
    assert weight_bytes(network) == pytest.approx(weights.stat().st_size, rel=0.001)
    assert weight_bytes(network) >= weights.stat().st_size
    assert weight_bytes(network, without="auxlayer") >= graph.stat().st_size

    needed = 3 * weight_bytes(network) + weight_bytes(network, without="auxlayer")
    with small_disk(tmp_path / "disk", needed + 2**16) as disk:
        check_disk_space(network, disk / "model", quantize=False)
        expected = rf"^the disk is full: .*model\.int8\.onnx and a temporary copy do not fit in {disk}/model"
        with pytest.raises(PlatformError, match=expected) as raised:
            check_disk_space(network, disk / "model", quantize=True)
        figures = re.search(r"they need (\d+) bytes, and (\d+) are free", str(raised.value))
        assert figures and int(figures[1]) == needed + weight_bytes(network, without="auxlayer") // 3
        assert needed <= int(figures[2]) <= needed + 2**16 + 4096

        (disk / "model_best.params").write_bytes(bytes(2**20))  # an earlier start's: it will be replaced
        check_disk_space(network, disk, quantize=False)
        (disk / "other").write_bytes(bytes(2**20))
        with pytest.raises(PlatformError):
            check_disk_space(network, disk, quantize=False)


def test_checkpoints_and_the_model_share_a_disk(
    tmp_path: Path, small_disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk of 12 MB, checkpoints of 4 MB: two fit beside a model of 4 MB, three do not."""
    size = 4 * 2**20
    with small_disk(tmp_path / "disk", 3 * size) as disk:
        check_checkpoint_room(disk, size, 0, disk / "model", 0)
        check_checkpoint_room(disk, size, 0, tmp_path / "model", 2**40)  # which is elsewhere
        assert not caplog.text
        check_checkpoint_room(disk, size, 0, disk / "model", size)
        assert "removes the older of the two retained checkpoints" in caplog.text
        expected = rf"^the disk is full: .*Two checkpoints, .* do not fit in {disk}: a checkpoint needs {size} "
        with pytest.raises(PlatformError, match=expected):
            check_checkpoint_room(disk, size, 0, disk / "model", 2 * size)
        (disk / "earlier").write_bytes(bytes(size))  # an earlier start's checkpoint, which gives way
        caplog.clear()
        check_checkpoint_room(disk, size, size, disk / "model", 0)
        assert not caplog.text
