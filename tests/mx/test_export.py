from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import onnx
import onnxruntime
import pytest
from mxnet.gluon.contrib.nn import SyncBatchNorm

from container.engines.onnx_model import import_openvino
from container.errors import PlatformError
from container.mx.export import export_onnx
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import SegmentationNetwork
from tests.conftest import PROGRAM, SmallDisk

CLASSES = 5
SIZES = [(1, 1), (7, 333), (40, 56), (33, 97), (97, 64)]

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")


def build_network(algorithm: str, backbone: str = "resnet-50", **norm: object) -> SegmentationNetwork:
    """Return a network whose weights and batch statistics are random but tame, so that every layer matters."""
    mx.random.seed(3)
    rng = np.random.default_rng(3)
    network = create_network(algorithm, CLASSES, backbone, **norm)
    init = mx.init.Xavier(magnitude=2)
    if algorithm == "fastscnn":  # whose depthwise convolutions have many outputs for each of their few inputs
        init = mx.init.Xavier("gaussian", "in", magnitude=2)
    network.initialize(init)
    network.both_heads(mx.nd, mx.nd.zeros((1, 16, 16, 3), dtype="uint8"))
    for name, parameter in network.collect_params().items():
        low, high = {"var": (0.5, 2.0), "mean": (-0.2, 0.2), "gamma": (0.5, 1.2), "beta": (-0.2, 0.2)}.get(
            name.rsplit("_", 1)[-1], (0, 0)
        )
        if high:
            parameter.set_data(mx.nd.array(rng.uniform(low, high, parameter.shape)))
    return network


def random_image(height: int, width: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (batch, height, width, 3)).astype(np.uint8)


def reference(network: SegmentationNetwork, images: np.ndarray) -> np.ndarray:
    answer: np.ndarray = network(mx.nd.array(images, dtype="uint8")).asnumpy()
    return answer


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(["logits"], {"image": images})[0]
    return answer


def assert_equal_logits(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(
    scope="module",
    params=[
        ("fcn", "resnet-50"),
        ("psp", "resnet-50"),
        ("deeplab", "resnet-50"),
        ("psp", "resnet-101"),
        ("fcn", "resnet-34"),
        ("psp", "resnet-18"),
        ("deeplab", "resnet-18"),
        ("fastscnn", ""),
    ],
    ids="/".join,
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SegmentationNetwork, Path]:
    network = build_network(*request.param)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(network, path)
    return network, path


def test_onnx_runtime_and_openvino_compute_what_mxnet_computes(exported: tuple[SegmentationNetwork, Path]) -> None:
    network, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    core = import_openvino().Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in SIZES:
        image = random_image(*size)
        expected = reference(network, image)
        assert expected.shape == (1, CLASSES, *size)
        answer = compiled(image)
        for logits, mask in (session.run(["logits", "mask"], {"image": image}), (answer["logits"], answer["mask"])):
            assert_equal_logits(logits, expected)
            assert (mask.dtype, mask.shape) == (np.uint8, (1, *size))
            chosen = np.take_along_axis(expected, mask[:, None].astype(np.int64), axis=1)[:, 0]
            assert (expected.max(1) - chosen).max() <= 2e-4 * np.abs(expected).max()  # the likeliest, or a tie with it


def test_the_graph_is_valid_and_holds_only_the_main_branch(exported: tuple[SegmentationNetwork, Path]) -> None:
    network, path = exported
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path))
    (image,) = model.graph.input  # weights are constants, not inputs
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dimension.dim_param or dimension.dim_value for dimension in image.type.tensor_type.shape.dim] == [
        "batch", "height", "width", 3,
    ]  # fmt: skip
    assert [output.name for output in model.graph.output] == ["logits", "mask"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    auxiliary = sum(np.prod(value.shape) for value in network.auxlayer.collect_params().values())
    everything = sum(np.prod(value.shape) for value in network.collect_params().values())
    assert sum(np.prod(tensor.dims) for tensor in floats) < everything - auxiliary


def test_a_consumer_of_the_logits_alone_can_leave_the_mask_out(exported: tuple[SegmentationNetwork, Path]) -> None:
    network, path = exported
    openvino = import_openvino()
    whole = openvino.Core().read_model(path)
    cut = openvino.Model([whole.output("logits")], whole.get_parameters())
    assert "TopK" in {node.get_type_name() for node in whole.get_ops()}
    assert "TopK" not in {node.get_type_name() for node in cut.get_ops()}
    image = random_image(24, 17)
    logits = openvino.Core().compile_model(cut, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0]
    assert_equal_logits(logits, reference(network, image))
    assert_equal_logits(run(path, image), reference(network, image))  # ONNX Runtime, asked for the logits alone


def test_images_of_a_batch_do_not_influence_one_another(exported: tuple[SegmentationNetwork, Path]) -> None:
    network, path = exported
    images = random_image(24, 17, batch=2)
    assert_equal_logits(run(path, images), reference(network, images))


@pytest.fixture(scope="module")
def fcn() -> SegmentationNetwork:
    return build_network("fcn")


def test_synchronised_batch_norm_is_exported_too(fcn: SegmentationNetwork, tmp_path: Path) -> None:
    fcn.save_parameters(str(tmp_path / "weights"))
    synchronised = SegmentationNetwork(
        "fcn", "resnet-50", CLASSES, norm_layer=SyncBatchNorm, norm_kwargs={"num_devices": 1}
    )
    synchronised.load_parameters(str(tmp_path / "weights"))
    export_onnx(synchronised, tmp_path / "model.onnx")
    assert_equal_logits(run(tmp_path / "model.onnx", random_image(20, 28)), reference(fcn, random_image(20, 28)))


def test_training_in_float16_leaves_a_float32_graph(fcn: SegmentationNetwork, tmp_path: Path) -> None:
    fcn.save_parameters(str(tmp_path / "weights"))
    program = f"""
from pathlib import Path
from mxnet.contrib import amp
amp.init("bfloat16")
from container.errors import PlatformError
from container.mx.export import export_onnx
from container.mx.networks.segmentation import SegmentationNetwork
network = SegmentationNetwork("fcn", "resnet-50", {CLASSES})
network.load_parameters("weights")
export_onnx(network, Path("model.onnx"))
"""
    environment = {"PYTHONPATH": str(PROGRAM)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, check=True, env=environment)
    assert_equal_logits(run(tmp_path / "model.onnx", random_image(20, 28)), reference(fcn, random_image(20, 28)))


def test_a_full_disk_leaves_no_half_written_graph(
    fcn: SegmentationNetwork, tmp_path: Path, small_disk: SmallDisk
) -> None:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        with pytest.raises(PlatformError, match=r"^the disk is full: .*model\.onnx cannot be written: it needs \d+"):
            export_onnx(fcn, disk / "model.onnx")
        assert list(disk.iterdir()) == []


def convert(model_dir: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "container.mx.convert", str(model_dir), str(target)]
    return subprocess.run(command, cwd=PROGRAM, capture_output=True, text=True, check=False)


@pytest.fixture
def archive(fcn: SegmentationNetwork, tmp_path: Path) -> Path:
    """A model directory as the built-in writes it without its auxiliary head: strings, and no graph."""
    weights = {name: value.data() for name, value in fcn._collect_params_with_prefix().items()}
    folder = tmp_path / "model"
    folder.mkdir()
    mx.nd.save(str(folder / "model_best.params"), {k: v for k, v in weights.items() if not k.startswith("auxlayer")})
    settings = {"num_classes": str(CLASSES), "algorithm": "fcn", "backbone": "resnet-50"}
    (folder / "hyperparams.json").write_text(json.dumps(settings))
    return folder


def test_an_archive_without_a_graph_is_converted(fcn: SegmentationNetwork, archive: Path, tmp_path: Path) -> None:
    completed = convert(archive, tmp_path / "out.onnx")
    assert completed.returncode == 0, completed.stderr
    expected = reference(fcn, random_image(20, 28))
    assert_equal_logits(run(tmp_path / "out.onnx", random_image(20, 28)), expected)


@pytest.mark.parametrize("algorithm", ["psp", "fcn"])
def test_weights_that_do_not_fit_are_refused_in_one_line(archive: Path, tmp_path: Path, algorithm: str) -> None:
    if algorithm == "fcn":
        (archive / "model_best.params").write_bytes(b"these are no weights")
    else:
        (archive / "hyperparams.json").write_text('{"num_classes": "5", "algorithm": "psp"}')
    completed = convert(archive, tmp_path / "out.onnx")
    assert completed.returncode == 1
    assert len(completed.stderr.splitlines()) == 1
    assert completed.stderr.startswith(f"ClientError: {archive}/model_best.params does not match")
    assert not (tmp_path / "out.onnx").exists()
