from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mxnet as mx
import numpy as np
import onnx
import pytest
from PIL import Image

from container.engines import costs, heads
from container.engines import openvino as engines
from container.engines.onnx_model import import_openvino, prepare_model, read_model
from container.engines.openvino import OpenVinoEngine
from container.engines.protocol import CancellationToken, CancelledError, ImageTooLargeError
from container.engines.quantize import quantize_onnx
from container.errors import ClientError
from container.mx.export import export_onnx
from container.mx.networks.segmentation import SegmentationNetwork
from container.serving.models import open_model
from container.serving.settings import ServeSettings
from tests.conftest import SmallDisk
from tests.mx.test_export import CLASSES, PROGRAM, build_network, random_image

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    return build_network("psp")


@pytest.fixture(scope="module")
def engine(graph: Path) -> OpenVinoEngine:
    engine = OpenVinoEngine(graph, "float32", threads=2, slots=2)
    engine.warm()
    return engine


def softmax(network: SegmentationNetwork, image: np.ndarray) -> np.ndarray:
    logits = network(mx.nd.array(image[None], dtype="uint8")).asnumpy()[0].astype(np.float64)
    powers = np.exp(logits - logits.max(0))
    answer: np.ndarray = powers / powers.sum(0)
    return answer


def assert_likeliest(mask: np.ndarray, probabilities: np.ndarray) -> None:
    """Every pixel's class must be the likeliest, or tie with it within the precision of float32."""
    assert mask.dtype == np.uint8
    chosen = np.take_along_axis(probabilities, mask[None].astype(np.int64), axis=0)[0]
    assert mask.shape == chosen.shape and (probabilities.max(0) - chosen).max() < 1e-5
    assert (mask == probabilities.argmax(0)).mean() > 0.999


@pytest.mark.parametrize("band", [2**24, 700], ids=["at once", "in bands"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 333), (40, 56), (97, 121)])
def test_output_equals_that_of_the_gluon_model(
    network: SegmentationNetwork,
    engine: OpenVinoEngine,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    band: int,
) -> None:
    monkeypatch.setattr(heads, "BAND_VALUES", band)
    image = random_image(*size)[0]
    expected = softmax(network, image)
    probabilities = engine.probabilities(image)
    assert (engine.num_classes, engine.precision, probabilities.dtype) == (CLASSES, "float32", np.float32)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert_likeliest(engine.mask(image), expected)


def test_tiles_give_the_output_of_the_full_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_onnx(build_network("fcn"), tmp_path / "model.onnx")
    image = random_image(501, 703)[0]
    whole = OpenVinoEngine(tmp_path / "model.onnx", "float32", threads=2).probabilities(image)
    monkeypatch.setattr(costs, "_TILE", (300_000, 300_000))
    engine = OpenVinoEngine(tmp_path / "model.onnx", "float32", threads=2)
    seen: list[tuple[int, ...]] = []
    infer = engines._infer

    def record(network: object, tile: np.ndarray, stop: CancellationToken) -> np.ndarray:
        seen.append(tile.shape)
        return infer(network, tile, stop)

    monkeypatch.setattr(engines, "_infer", record)
    plan = engine.planner.plan(*image.shape[:2], room=2**30)
    tiled = engine.probabilities(image, plan)
    assert len(seen) > 1 and all(height * width <= 300_000 for height, width, _ in seen)
    assert plan.pixels == sum(64 * -(-height // 8) * -(-width // 8) for height, width, _ in seen)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_engine_removes_layers_after_the_coarse_logits(graph: Path) -> None:
    openvino = import_openvino()
    model = read_model(openvino, graph)
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert "Convolution" in kinds and "TopK" not in kinds
    assert [output.get_any_name() for output in model.outputs] == ["coarse_logits"]


def test_cancellation_stops_after_the_tile_and_affects_no_other_inference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_onnx(build_network("fcn"), tmp_path / "model.onnx")
    engine, stop, seen = OpenVinoEngine(tmp_path / "model.onnx", "float32", threads=2), CancellationToken(), []
    small, large = random_image(40, 56)[0], random_image(501, 703)[0]
    expected = engine.mask(small)
    monkeypatch.setattr(costs, "_TILE", (300_000, 300_000))
    infer = engines._infer

    def ask_in_the_first(network: object, tile: np.ndarray, stop: CancellationToken) -> np.ndarray:
        answer = infer(network, tile, stop)
        seen.append(tile.shape)
        stop.ask()
        return answer

    monkeypatch.setattr(engines, "_infer", ask_in_the_first)
    with pytest.raises(CancelledError):
        engine.mask(large, engine.planner.plan(501, 703, room=2**30), stop)
    assert len(seen) == 1
    monkeypatch.undo()
    np.testing.assert_array_equal(engine.mask(small), expected)


def test_cancellation_before_the_start_is_respected(engine: OpenVinoEngine) -> None:
    stop = CancellationToken()
    stop.ask()
    with pytest.raises(CancelledError):
        engine.probabilities(random_image(40, 56)[0], None, stop)


@pytest.mark.parametrize(("size", "room", "tiles"), [((2600, 2500), 1400, True), ((500, 500), 1400, False)])
def test_plan_fits_the_available_memory(size: tuple[int, int], room: int, tiles: bool) -> None:
    plan = costs.MemoryModel(21, 223, 310).plan(*size, room * 2**20)
    assert plan.memory <= room * 2**20
    assert (plan.tile is not None) == tiles
    assert plan.pixels >= size[0] * size[1]


def test_image_that_never_fits_reports_the_memory_that_it_needs() -> None:
    with pytest.raises(ImageTooLargeError, match=r"2500×2600 pixels need about \d+ MB; an image may take 300 MB"):
        costs.MemoryModel(21, 223, 310).plan(2600, 2500, 300 * 2**20)
    with pytest.raises(ImageTooLargeError, match="an image may take 2000 MB"):
        costs.MemoryModel(21, None, 660).plan(2600, 2500, 2000 * 2**20)  # a decoder that sees the whole image


def test_array_views_are_read_correctly(engine: OpenVinoEngine) -> None:
    image = random_image(40, 64)[0]
    np.testing.assert_array_equal(engine.mask(image[::2, ::-1]), engine.mask(image[::2, ::-1].copy()))


def test_concurrent_requests_get_their_own_output(engine: OpenVinoEngine) -> None:
    images = [random_image(height, width)[0] for height, width in [(16, 24), (40, 33), (9, 70), (64, 16)] * 6]
    alone = [engine.probabilities(image) for image in images[:4]] * 6
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(engine.probabilities, images))
        masks = list(pool.map(engine.mask, images))
    for one, other, mask in zip(alone, together, masks, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert_likeliest(mask, one.astype(np.float64))


def test_memory_of_large_images_is_released(graph: Path) -> None:
    program = f"""
from pathlib import Path
import numpy as np
from container.engines import openvino as engines
def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) // 1024
engines.STANDING = 2**25
engine = engines.OpenVinoEngine(Path({str(graph)!r}), "float32", threads=2, slots=2)
engine.warm()
before = resident("VmRSS")
engine.mask(np.random.default_rng(0).integers(0, 256, (500, 800, 3), np.uint8))
print(before, resident("VmHWM"), resident("VmRSS"))
assert engine.mask(np.zeros((16, 16, 3), np.uint8)).shape == (16, 16)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=PROGRAM, check=True, capture_output=True, text=True)
    before, most, after = map(int, done.stdout.split())
    assert most - before > 100, done.stdout  # MB: else this shows nothing
    assert after - before < (most - before) / 2, done.stdout


def test_serving_uses_no_network_and_no_mxnet(graph: Path) -> None:
    program = f"""
import sys, threading
from pathlib import Path
events = []
sys.addaudithook(lambda event, arguments: events.append(event) if event.startswith(
    ("socket.connect", "socket.getaddrinfo", "urllib", "os.fork", "subprocess", "os.posix_spawn")) else None)
import numpy as np
from container.engines.onnx_model import prepare_model
from container.engines.openvino import OpenVinoEngine
engine = OpenVinoEngine(prepare_model(Path({str(graph.parent)!r}), "auto", Path("/")), threads=1)
engine.warm()
assert engine.mask(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30)
assert not events, events
assert threading.active_count() == 1, threading.enumerate()
forbidden = [name for name in sys.modules if name.split(".")[0] in ("mxnet", "gluoncv", "openvino_telemetry", "onnx")]
assert not forbidden, forbidden
"""
    subprocess.run([sys.executable, "-c", program], cwd=PROGRAM, check=True)


def test_precision_depends_on_the_processor(graph: Path) -> None:
    native = "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert OpenVinoEngine(graph, threads=1).precision == ("bfloat16" if native else "float32")
    if not native:
        with pytest.raises(
            ClientError, match=r"SERVE_PRECISION=bfloat16 is not supported by this processor. Use auto or float32"
        ):
            OpenVinoEngine(graph, "bfloat16", threads=1)
    with pytest.raises(ClientError, match="SERVE_PRECISION must be one of auto, float32, bfloat16, int8, not 'half'"):
        OpenVinoEngine(graph, "half", threads=1)


def write_graph(path: Path, image_type: int, stride: int) -> None:
    """Write a graph of one convolution, which differs from train's in what it takes or in how fine its answer is."""
    weight = onnx.numpy_helper.from_array(np.ones((CLASSES, 3, 1, 1), np.float32), "weight")
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["floats"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Conv", ["planes", "weight"], ["coarse_logits"], strides=[stride, stride]),
    ]
    image = onnx.helper.make_tensor_value_info("image", image_type, ["n", "h", "w", 3])
    logits = onnx.helper.make_tensor_value_info("coarse_logits", onnx.TensorProto.FLOAT, None)
    model = onnx.helper.make_graph(nodes, "g", [image], [logits], [weight])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(model, opset_imports=[opset], ir_version=8), str(path))


@pytest.mark.parametrize(
    ("content", "reason"), [("truncated", ""), ("foreign", ""), ("floats", "is not uint8"), ("finer", "shape")]
)
def test_other_onnx_model_is_rejected_with_its_path(graph: Path, tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "model.onnx"
    if content == "truncated":
        path.write_bytes(graph.read_bytes()[:100_000])
    elif content == "floats":
        write_graph(path, onnx.TensorProto.FLOAT, 8)
    elif content == "finer":
        write_graph(path, onnx.TensorProto.UINT8, 4)
    else:
        value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])
        output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])
        node = onnx.helper.make_node("Relu", ["x"], ["y"])
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [output])), str(path))
    with pytest.raises(ClientError, match=f"{path} is not an ONNX model of a training job: .*{reason}"):
        OpenVinoEngine(path, threads=1).warm()


def test_onnx_model_of_another_job_is_rejected(tmp_path: Path) -> None:
    write_graph(tmp_path / "model.onnx", onnx.TensorProto.UINT8, 8)
    (tmp_path / "model_best.params").touch()
    for classes in (CLASSES, CLASSES + 2):
        (tmp_path / "hyperparams.json").write_text(json.dumps({"num_classes": classes}))
        if classes == CLASSES:
            assert open_model(tmp_path, ServeSettings(tmp_path)).engine.num_classes == CLASSES
        else:
            with pytest.raises(ClientError, match=f"describes {classes} classes, its graph has {CLASSES}"):
                open_model(tmp_path, ServeSettings(tmp_path))


def test_onnx_model_is_exported_in_a_child_process(network: SegmentationNetwork, tmp_path: Path) -> None:
    folder, scratch = tmp_path / "model", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    with pytest.raises(
        ClientError, match=r"model.onnx cannot be exported from .*/model: .* hyperparams.json is missing"
    ):
        prepare_model(folder, "auto", scratch)
    network.save_parameters(str(folder / "model_best.params"))
    (folder / "hyperparams.json").write_text(json.dumps({"num_classes": str(CLASSES), "algorithm": "psp"}))
    graph = prepare_model(folder, "auto", scratch)
    assert graph == scratch / "model.onnx" and not (folder / "model.onnx").exists()
    image = random_image(20, 28)[0]
    np.testing.assert_allclose(
        OpenVinoEngine(graph, "float32", threads=1).probabilities(image), softmax(network, image), atol=1e-5
    )


def test_export_without_disk_space_reports_the_fix(
    network: SegmentationNetwork, tmp_path: Path, small_disk: SmallDisk
) -> None:
    network.save_parameters(str(tmp_path / "model_best.params"))
    (tmp_path / "hyperparams.json").write_text(json.dumps({"num_classes": str(CLASSES), "algorithm": "psp"}))
    with small_disk(tmp_path / "scratch", 2**20) as scratch:
        folder = scratch / "tmpabc"
        folder.mkdir()
        with pytest.raises(ClientError, match=r"/scratch has 1 MB of free space, and it needs about \d+. Mount"):
            prepare_model(tmp_path, "auto", folder)
        (tmp_path / "model_best.params").write_bytes(bytes(2**21))  # what is damaged wants no larger disk
        with pytest.raises(ClientError, match=r"model_best\.params does not match this model"):
            prepare_model(tmp_path, "auto", folder)


def test_missing_int8_model_reports_the_fix(graph: Path) -> None:
    with pytest.raises(
        ClientError,
        match=r"SERVE_PRECISION=int8 needs .*model.int8.onnx, which does not exist.*\(1\) Train with _quantize=True",
    ):
        prepare_model(graph.parent, "int8", graph.parent)


def smooth_images(count: int) -> list[np.ndarray]:
    """Return images with structure, each of another size."""
    rng = np.random.default_rng(8)
    sizes = [(48 + 8 * number, 80 - 5 * number) for number in range(count)]
    coarse = [Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)) for _ in sizes]
    return [np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image, size in zip(coarse, sizes, strict=True)]


@pytest.fixture(scope="module")
def quantized(graph: Path) -> Path:
    path = graph.parent / "quantized" / "model.int8.onnx"
    quantize_onnx(graph, path, iter(smooth_images(6)))
    return path


def test_int8_is_smaller_and_agrees_with_float32(graph: Path, quantized: Path, engine: OpenVinoEngine) -> None:
    assert quantized.stat().st_size < 0.3 * graph.stat().st_size
    onnx.checker.check_model(str(quantized), full_check=True)
    assert [output.name for output in onnx.load(str(quantized)).graph.output] == ["logits", "mask"]
    int8 = OpenVinoEngine(quantized, "int8", threads=2)
    assert int8.precision == "int8"
    for image in smooth_images(8)[6:]:
        exact, approximate = engine.probabilities(image), int8.probabilities(image)
        assert 0 < np.abs(exact - approximate).max() < 0.05
        second, first = np.sort(exact, axis=0)[-2:]
        clear = first - second > 0.1  # this network is not trained: most of its pixels are near ties
        assert clear.sum() > 100
        np.testing.assert_array_equal(engine.mask(image)[clear], int8.mask(image)[clear])


def test_openvino_runs_the_convolutions_in_int8(quantized: Path) -> None:
    core = import_openvino().Core()
    model = core.compile_model(core.read_model(quantized), "CPU").get_runtime_model()
    kinds = [node.get_rt_info() for node in model.get_ops()]
    precisions = [str(info["runtimePrecision"].astype(str)) for info in kinds if _layer(info) == "Convolution"]
    assert len(precisions) > 50
    assert sum(precision in ("i8", "u8") for precision in precisions) / len(precisions) > 0.95


def _layer(info: dict) -> str:
    return str(info["layerType"].astype(str))


def test_quantization_needs_an_image(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="no images for the int8 calibration"):
        quantize_onnx(graph, tmp_path / "model.int8.onnx", [])
    assert list(tmp_path.iterdir()) == []


def test_command_quantizes_model_artifacts(graph: Path, tmp_path: Path) -> None:
    model, photographs = tmp_path / "model", tmp_path / "photographs"
    model.mkdir()
    photographs.mkdir()
    shutil.copy(graph, model)
    (model / "model_best.params").touch()
    (model / "hyperparams.json").write_text(f'{{"num_classes": "{CLASSES}", "algorithm": "fcn"}}')
    command = [sys.executable, "-m", "container.engines.quantize", str(model), str(photographs), "--count", "2"]
    refused = subprocess.run(command, cwd=PROGRAM, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "ClientError: there are no images" in refused.stderr
    for number, image in enumerate(smooth_images(2)):
        Image.fromarray(image).save(photographs / f"{number}.jpg")
    subprocess.run(command, cwd=PROGRAM, check=True)
    assert OpenVinoEngine(prepare_model(model, "int8", tmp_path), "int8", threads=1).num_classes == CLASSES


def test_threads_wait_for_a_slot(graph: Path) -> None:
    engine = OpenVinoEngine(graph, "float32", threads=1, slots=1)
    with engine._slot(random_image(8, 8)[0], None, "mask"):
        waiting = threading.Thread(target=engine.mask, args=(random_image(8, 8)[0],))
        waiting.start()
        waiting.join(timeout=0.2)
        assert waiting.is_alive()
    waiting.join(timeout=30)
    assert not waiting.is_alive()
