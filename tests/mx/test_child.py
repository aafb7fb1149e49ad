"""An engine in a process of its own: the same answers, and an end at any moment."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from container.engines.subprocess_engine import SubprocessEngine, _most_pixels, _open
from container.errors import AlgorithmError, JobCancelledError
from container.mx.export import export_onnx
from tests.mx.test_export import CLASSES, build_network, random_image, reference

MEMORY = 2**31


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory, and beside it what its network says of two images."""
    folder = tmp_path_factory.mktemp("model")
    network = build_network("fcn")
    network.save_parameters(str(folder / "model_best.params"))
    (folder / "hyperparams.json").write_text(json.dumps({"num_classes": CLASSES, "algorithm": "fcn"}))
    export_onnx(network, folder / "model.onnx")
    for height, width in SIZES:
        np.save(folder / f"{height}.npy", reference(network, random_image(height, width))[0])
    return folder


SIZES = [(40, 56), (1, 9)]


@pytest.fixture(params=["model.onnx", "."], ids=["openvino", "mxnet"])
def engine(request: pytest.FixtureRequest, model_dir: Path) -> Iterator[SubprocessEngine]:
    engine = SubprocessEngine(model_dir / request.param, threads=1, memory=MEMORY, stop=threading.Event())
    yield engine
    engine.close()


def test_output_equals_that_of_the_gluon_model(engine: SubprocessEngine, model_dir: Path) -> None:
    assert engine.num_classes == CLASSES
    for height, width in SIZES * 2:
        logits = np.load(model_dir / f"{height}.npy")
        mask = engine.mask(random_image(height, width)[0])
        assert (mask.shape, mask.dtype) == ((height, width), np.uint8)
        chosen = np.take_along_axis(logits, mask[None].astype(np.int64), axis=0)[0]
        assert (logits.max(0) - chosen).max() < 1e-4 * np.abs(logits).max()
    view = random_image(40, 56)[0][::-1, ::2]
    np.testing.assert_array_equal(engine.mask(view), engine.mask(view.copy()))


def test_killed_process_is_a_memory_error_and_is_replaced(engine: SubprocessEngine) -> None:
    first = engine.mask(random_image(40, 56)[0])
    assert engine._process
    killed = engine._process.pid
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(MemoryError, match="memory ran out"):
        engine.mask(random_image(40, 56)[0])
    assert not Path(f"/proc/{killed}").exists()
    np.testing.assert_array_equal(engine.mask(random_image(40, 56)[0]), first)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.5])
def test_stop_kills_the_process_immediately(model_dir: Path, seconds: float) -> None:
    until = threading.Event()
    engine = SubprocessEngine(model_dir / "model.onnx", threads=1, memory=2**33, stop=until)
    assert engine._process
    pid = engine._process.pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    stopped: list[float] = []

    def stop() -> None:
        stopped.append(time.monotonic())
        until.set()

    threading.Timer(seconds, stop).start()
    with pytest.raises(JobCancelledError):
        engine.mask(np.zeros((4000, 4000, 3), np.uint8))  # a minute's work
    assert time.monotonic() - stopped[0] < 2
    assert not Path(f"/proc/{pid}").exists()


def test_stop_kills_a_starting_process(model_dir: Path) -> None:
    until = threading.Event()
    until.set()
    start = time.monotonic()
    with pytest.raises(JobCancelledError):
        SubprocessEngine(model_dir / "model.onnx", threads=1, memory=MEMORY, stop=until)
    assert time.monotonic() - start < 2


def test_largest_image_depends_on_the_memory(model_dir: Path) -> None:
    by_graph, by_mxnet = (
        [_most_pixels(_open(source, 1).planner, memory) for memory in (0, 2**28, 2**31, 2**40)]
        for source in (model_dir / "model.onnx", model_dir)
    )
    # Within 0.5 %, because images have whole rows of cells.
    # beside the 8 bytes per pixel of the process that asks: 310 of the network, 5 of the image and its mask, an eighth
    # and 5 for each class, less the 64 MB that are the model's
    each = 8 + 310 + 5 + (1 / 8 + 5) * CLASSES
    assert by_graph[1] == pytest.approx((2**28 + 2**26) / each, rel=5e-3)
    # in tiles of a million pixels decoding takes most: 28 beside those 8
    assert by_graph[2] == pytest.approx(2**31 / 36, rel=5e-3)
    # 700 bytes per pixel, 4.4 per class, 28 and 8 beside them, and 128 MB
    assert by_mxnet[1] == pytest.approx((2**28 - 2**27) / (736 + 4.4 * CLASSES), rel=5e-3)
    assert by_graph[0] == by_mxnet[0] == 0
    assert by_graph[-1] == by_mxnet[-1] == 2**28 - 1


def test_error_of_an_invalid_onnx_model_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(
        AlgorithmError, match=r"the inference process failed: .*model\.onnx is not an ONNX model of a train"
    ):
        SubprocessEngine(tmp_path / "model.onnx", threads=1, memory=MEMORY, stop=threading.Event())
