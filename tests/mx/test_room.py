"""Room for the model directory: as much as the files turn out to take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from container.errors import PlatformError
from container.mx.export import export_onnx
from container.mx.room import check_room, weight_bytes
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
        check_room(network, disk / "model", quantize=False)
        expected = rf"^the disk is full: give the job a larger volume .*{disk}/model cannot hold .*model\.int8\.onnx"
        with pytest.raises(PlatformError, match=expected) as raised:
            check_room(network, disk / "model", quantize=True)
        figures = re.search(r"they need (\d+) bytes, (\d+) are free", str(raised.value))
        assert figures and int(figures[1]) == needed + weight_bytes(network, without="auxlayer") // 3
        assert needed <= int(figures[2]) <= needed + 2**16 + 4096

        (disk / "model_best.params").write_bytes(bytes(2**20))  # an earlier start's: it will be replaced
        check_room(network, disk, quantize=False)
        (disk / "other").write_bytes(bytes(2**20))
        with pytest.raises(PlatformError):
            check_room(network, disk, quantize=False)
