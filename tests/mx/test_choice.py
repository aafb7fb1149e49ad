"""Which graph answers, and that it is the job's: weights, graph and int8 graph of one network, and of others."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import mxnet as mx
import numpy as np
import onnx
import pytest

from container.artifact.check import approve_int8, write_check
from container.engines.loading import load_engine
from container.engines.onnx_model import import_openvino
from container.engines.openvino import OpenVinoEngine
from container.engines.quantize import quantize_onnx
from container.errors import ClientError
from container.mx.export import export_onnx
from container.mx.networks.segmentation import SegmentationNetwork
from container.serving.settings import ServeSettings
from tests.mx.test_export import CLASSES, build_network
from tests.mx.test_openvino import smooth_images, softmax, write_graph

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    return build_network("fcn")


@pytest.fixture(scope="module")
def trained(network: SegmentationNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a job leaves, its int8 graph approved."""
    folder = tmp_path_factory.mktemp("job")
    settings = {"num_classes": CLASSES, "algorithm": "fcn", "backbone": "resnet-50"}
    (folder / "hyperparams.json").write_text(json.dumps(settings))
    network.save_parameters(str(folder / "model_best.params"))
    export_onnx(network, folder / "model.onnx")
    write_check(folder, lambda picture: softmax(network, picture).astype(np.float32))
    quantize_onnx(folder / "model.onnx", folder / "model.int8.onnx", iter(smooth_images(2)))
    approve_int8(folder, {})
    return folder


@pytest.fixture
def archive(trained: Path, tmp_path: Path) -> Path:
    """A copy whose files may be replaced: they are links."""
    for path in trained.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    return tmp_path


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def usual() -> str:
    native = "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bfloat16" if native else "float32"


def open_(model_dir: Path, precision: str = "auto", engine: str = "openvino") -> str:
    return load_engine(model_dir, ServeSettings(model_dir, precision=precision, engine=engine)).precision


def drop_int8_approval(model_dir: Path) -> None:
    content = json.loads((model_dir / "check.json").read_text())
    del content["int8"]
    replace(model_dir / "check.json", json.dumps(content).encode())


@pytest.mark.parametrize("precision", ["float32", usual(), "int8"])
def test_output_in_every_precision_matches_check_json(archive: Path, precision: str) -> None:
    assert open_(archive, precision) == precision


def test_auto_uses_an_approved_int8_model(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_(archive) == "int8"
    with caplog.at_level(logging.WARNING):
        drop_int8_approval(archive)
        assert open_(archive) == usual()
        assert not caplog.records
        (archive / "check.json").unlink()  # an archive of an earlier version, with `_quantize`
        assert open_(archive) == usual()
        assert not caplog.records


def test_auto_does_not_use_another_int8_model(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    replace(archive / "model.int8.onnx", (archive / "model.int8.onnx").read_bytes() + b"\0")
    assert open_(archive) == usual()
    assert f"{archive}/model.int8.onnx is not the one that its job approved" in caplog.text


def test_auto_does_not_use_an_int8_model_with_other_output(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    (archive / "model.int8.onnx").unlink()
    write_graph(archive / "model.int8.onnx", onnx.TensorProto.UINT8, 8)
    shutil.copy(archive / "check.json", archive / "copy")
    (archive / "check.json").unlink()
    (archive / "copy").rename(archive / "check.json")
    approve_int8(archive, {})
    assert open_(archive) == usual()
    assert (
        "auto does not use the int8 model" in caplog.text and "the model output differs from check.json" in caplog.text
    )
    with pytest.raises(ClientError, match=r"the model output differs from check.json \(the scores differ"):
        open_(archive, "int8")


@pytest.mark.parametrize("precision", ["float32", usual()])
def test_onnx_model_of_another_job_is_rejected(archive: Path, precision: str) -> None:
    (archive / "model.onnx").unlink()
    export_onnx(_other(), archive / "model.onnx")
    with pytest.raises(ClientError, match=rf"^{archive}: the model output differs from check.json.* Extract the model"):
        open_(archive, precision)


@pytest.mark.parametrize("depends", ["narrow", "none"])
def test_auto_selects_float32_if_a_narrow_image_has_no_repeatable_result(
    archive: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, depends: str
) -> None:
    drop_int8_approval(archive)
    compute, calls = OpenVinoEngine.probabilities, []

    def disturbed(self: OpenVinoEngine, image: np.ndarray, *rest: object) -> np.ndarray:
        answer = compute(self, image, *rest)
        calls.append(image.shape[:2])
        if depends == "narrow" and image.shape[1] <= 8 and self.precision == usual():
            answer = np.roll(answer, len(calls), axis=1)  # of another row at each call
        return answer

    monkeypatch.setattr(OpenVinoEngine, "probabilities", disturbed)
    if depends == "none":
        assert open_(archive) == usual()
        assert calls.count((64, 8)) == 2 and calls.index((64, 64), calls.index((64, 8))) > calls.index((64, 8))
        return
    with pytest.raises(ClientError, match=f"different results for the same narrow image in {usual()}"):
        open_(archive, usual())
    if usual() == "bfloat16":
        assert open_(archive) == "float32"
        assert "SERVE_PRECISION=auto selects float32" in caplog.text


def _other() -> SegmentationNetwork:
    mx.random.seed(11)
    other = SegmentationNetwork("fcn", "resnet-50", CLASSES)
    other.initialize(mx.init.Xavier())
    other.both_heads(mx.nd, mx.nd.zeros((1, 16, 16, 3), dtype="uint8"))
    return other


@pytest.mark.parametrize("engine", ["openvino", "mxnet"])
def test_weights_of_another_job_are_rejected(archive: Path, engine: str) -> None:
    (archive / "model_best.params").unlink()
    _other().save_parameters(str(archive / "model_best.params"))
    with pytest.raises(ClientError, match=r"model_best\.params is not the file that check\.json was written for"):
        open_(archive, "auto", engine)


def test_mxnet_output_matches_check_json(archive: Path) -> None:
    assert open_(archive, "auto", "mxnet") == "float32"


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_rejected(archive: Path, which: int, value: float) -> None:
    (archive / "check.json").unlink()
    model = onnx.load(str(archive / "model.onnx"))
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4][which]
    array = onnx.numpy_helper.to_array(weights).copy()
    array[0, 0, 0, 0] = value
    weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
    (archive / "model.onnx").unlink()
    onnx.save(model, str(archive / "model.onnx"))
    with pytest.raises(ClientError, match=rf"{archive}/model.onnx contains weights that are not finite"):
        open_(archive)
