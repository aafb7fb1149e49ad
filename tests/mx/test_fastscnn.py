"""Fast-SCNN against GluonCV's own and imgclsmob's, at sizes where GluonCV's own fails, and in every engine."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo.fastscnn import FastSCNN
from mxnet.gluon.contrib.nn import SyncBatchNorm

from container.data.batches import Batch
from container.engines.mxnet import MXNetEngine
from container.engines.openvino import OpenVinoEngine
from container.engines.quantize import quantize_onnx
from container.environment import Channel, Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters, load
from container.mx.checkpoint import load_arrays, save_arrays
from container.mx.export import export_onnx
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights, load_weights
from container.mx.optimization.freeze import freeze_layers
from container.mx.trainer import Trainer
from container.mx.weights.initial_network import create_initial_network
from container.mx.weights.initial_weights import check_frozen, check_initial_weights
from tests.mx.published import Weights, write_gluoncv
from tests.mx.published_fastscnn import PublishedFastSCNN
from tests.mx.test_export import CLASSES, assert_equal_logits, build_network, random_image, reference, run
from tests.mx.test_openvino import smooth_images
from tests.mx.tiny import copies, cpus

Network = mx.gluon.HybridBlock

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is (already initialized|not used)")

HEADS = ("classifier.", "auxlayer.")
CLASSIFIERS = {f"{layer}.{kind}" for layer in ("classifier.conv", "auxlayer.block.4") for kind in ("weight", "bias")}
SMALL = [(1, 1), (2, 2), (1, 40), (33, 2), (3, 3)]


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    return build_network("fastscnn")


@pytest.fixture(scope="module")
def model_dir(network: SegmentationNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network.save_parameters(str(folder / "model_best.params"))
    (folder / "hyperparams.json").write_text(json.dumps({"num_classes": str(CLASSES), "algorithm": "fastscnn"}))
    return folder


def theirs_at(height: int, width: int, weights: Path) -> FastSCNN:
    """GluonCV's network, its resizes set to the sizes that its layers have for such an image."""
    fine = -(-(height - 2) // 8), -(-(width - 2) // 8)  # the first convolution has no padding
    coarse = -(-fine[0] // 4), -(-fine[1] // 4)
    theirs = FastSCNN(CLASSES, height=height, width=width)
    theirs.global_feature_extractor.ppm._up_kwargs = dict(zip(("height", "width"), coarse, strict=True))
    theirs.feature_fusion._up_kwargs = dict(zip(("height", "width"), fine, strict=True))
    theirs.load_parameters(str(weights))
    return theirs


def normalized(images: np.ndarray) -> mx.nd.NDArray:
    scaled = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return mx.nd.array(scaled.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybrid"])
def test_both_heads_are_gluoncvs_at_every_size_in_any_order(
    network: SegmentationNetwork, model_dir: Path, hybrid: bool
) -> None:
    network.hybridize(hybrid)
    for size in ((64, 96), (40, 56), (3, 3), (33, 97), (11, 130), (64, 96)):
        images = random_image(*size, batch=2)
        main, auxiliary = theirs_at(*size, model_dir / "model_best.params")(normalized(images))
        assert_equal_logits(reference(network, images), main.asnumpy())
        ours = network.both_heads(mx.nd, mx.nd.array(images, dtype="uint8"))
        assert_equal_logits(ours[0].asnumpy(), main.asnumpy())
        assert_equal_logits(ours[1].asnumpy(), auxiliary.asnumpy())
    network.hybridize(False)


def test_the_image_matters_to_every_test_here(network: SegmentationNetwork) -> None:
    logits = reference(network, random_image(40, 56))[0]
    assert logits.std((1, 2)).max() > 0.05 * np.abs(logits).max()


def test_parameter_files_are_gluoncvs(network: SegmentationNetwork, model_dir: Path) -> None:
    theirs = FastSCNN(CLASSES)._collect_params_with_prefix()
    ours = network._collect_params_with_prefix()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    assert {name for name, value in ours.items() if value.lr_mult == 10} == {
        name for name in theirs if name.startswith("auxlayer.")
    }
    cityscapes = create_network("fastscnn", 19).collect_params().values()
    assert sum(int(np.prod(value.shape)) for value in cityscapes if value._differentiable) == 1_176_278  # as published


@pytest.mark.parametrize("size", SMALL)
def test_images_below_three_pixels_have_their_edge_repeated(
    network: SegmentationNetwork, graph: Path, model_dir: Path, size: tuple[int, int]
) -> None:
    image = random_image(*size)
    wider = [(0, max(0, 3 - side)) for side in size]
    padded = np.pad(image, [(0, 0), *wider, (0, 0)], mode="edge")
    expected = reference(network, padded)[:, :, : size[0], : size[1]]
    for hybrid in (False, True):
        network.hybridize(hybrid)
        assert_equal_logits(reference(network, image), expected)
    network.hybridize(False)
    assert_equal_logits(run(graph, image), expected)
    powers = np.exp(expected[0] - expected[0].max(0))
    for engine in (OpenVinoEngine(graph, "float32", threads=1), MXNetEngine(model_dir)):
        np.testing.assert_allclose(engine.probabilities(image[0]), powers / powers.sum(0), atol=1e-4)
        assert engine.mask(image[0]).shape == size


def test_what_a_gpus_float16_network_is_called_with_has_three_pixels(
    network: SegmentationNetwork, model_dir: Path
) -> None:
    """The conversion leaves a plain graph, which does not look after small images itself."""
    engine = MXNetEngine(model_dir)
    graph = network(mx.sym.var("data"))
    engine._network = mx.gluon.SymbolBlock(graph, mx.sym.var("data"))
    engine._network.load_parameters(str(model_dir / "model_best.params"), ignore_extra=True, allow_missing=True)
    for name, value in network.collect_params().items():
        if name in engine._network.params:
            engine._network.params[name]._load_init(value.data(), mx.cpu())
    image = random_image(1, 2)[0]
    np.testing.assert_allclose(engine.probabilities(image), MXNetEngine(model_dir).probabilities(image), atol=1e-6)


def test_a_synchronised_network_is_exported_too(network: SegmentationNetwork, model_dir: Path, tmp_path: Path) -> None:
    norm = {"norm_layer": SyncBatchNorm, "norm_kwargs": {"num_devices": 1}}
    synchronised = create_network("fastscnn", CLASSES, **norm)
    kinds: list[type] = []
    synchronised.apply(lambda block: kinds.append(type(block)))
    assert SyncBatchNorm in kinds and mx.gluon.nn.BatchNorm not in kinds
    synchronised.load_parameters(str(model_dir / "model_best.params"))
    export_onnx(synchronised, tmp_path / "model.onnx")
    for size in ((20, 28), (2, 70)):
        assert_equal_logits(run(tmp_path / "model.onnx", random_image(*size)), reference(network, random_image(*size)))


def test_weights_are_loaded_onto_any_device(model_dir: Path) -> None:
    network = create_network("fastscnn", CLASSES)
    load_weights(network, model_dir / "model_best.params", cpus(2)[1:])
    assert {str(value.list_ctx()) for value in network.collect_params().values()} == {"[cpu(1)]"}


def test_every_batch_norm_knows_how_many_devices_there_are() -> None:
    synchronised = create_network("fastscnn", 2, norm_layer=SyncBatchNorm, norm_kwargs={"num_devices": 3})
    numbers: set[int] = set()
    synchronised.apply(lambda block: numbers.add(block._kwargs["ndev"]) if isinstance(block, SyncBatchNorm) else None)
    assert numbers == {3}


def test_int8_agrees_with_float32(graph: Path, tmp_path: Path) -> None:
    quantize_onnx(graph, tmp_path / "model.int8.onnx", iter(smooth_images(6)))
    exact, int8 = OpenVinoEngine(graph, "float32", threads=1), OpenVinoEngine(tmp_path / "model.int8.onnx", threads=1)
    for image in [*smooth_images(8)[6:], smooth_images(8)[7][:2, :1]]:
        difference = np.abs(exact.probabilities(image) - int8.probabilities(image))
        assert 0 < difference.max() < 0.05


def test_it_is_not_cut_into_tiles(graph: Path) -> None:
    assert OpenVinoEngine(graph, "float32", threads=1).planner.reach is None  # its pyramid sees the whole image


def job(**changes: object) -> Hyperparameters:
    return load({"num_classes": 3, "num_training_samples": 4, "algorithm": "fastscnn", "_seed": 1, **changes})


def batch(size: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(rng.integers(0, 256, (size, 32, 40, 3), np.uint8), rng.integers(0, 3, (size, 32, 40)).astype(np.uint8))


def trainer(devices: int, **norm: object) -> Trainer:
    mx.random.seed(3)
    np.random.seed(3)
    network = create_network("fastscnn", 3, **norm)
    initialize_weights(network)
    if norm:
        network.classifier.dp._rate = network.auxlayer.block[3]._rate = 0.0  # devices draw dropout of their own
    network.collect_params().reset_ctx(cpus(devices))
    network.hybridize()
    return Trainer(network, job(_gradient_scale="mean"), cpus(devices))


def steps(trainer: Trainer, batches: list[Batch], first: int = 0) -> list[float]:
    losses = []
    for number, each in enumerate(batches, first):
        trainer.seed(1, 0, number)
        losses.append(float(sum(part.asscalar() for part in trainer.step(each, 0.003))))
    return losses


def test_two_devices_train_as_one() -> None:
    batches = [batch(4, 0), batch(3, 1), batch(1, 2)]
    fixed = {"norm_kwargs": {"use_global_stats": True}}
    one, two = trainer(1, **fixed), trainer(2, **fixed)
    assert steps(two, batches) == pytest.approx(steps(one, batches), rel=1e-3)
    two.synchronize_replicas()


@pytest.mark.parametrize("devices", [1, 2])
def test_a_checkpoint_goes_on_as_if_it_had_never_stopped(tmp_path: Path, devices: int) -> None:
    # over the few values of such small images, batch normalization would make figures of rounding errors
    fixed = {"norm_kwargs": {"use_global_stats": True}}
    through, resumed = trainer(devices, **fixed), trainer(devices, **fixed)
    steps(through, [batch(3, 0), batch(2, 1)])
    through.synchronize_replicas()
    numbers = save_arrays(through, tmp_path / "weights", tmp_path / "optimizer")
    load_arrays(resumed, tmp_path / "weights", tmp_path / "optimizer", numbers)
    rest = [batch(2, 2), batch(3, 3)]
    assert steps(resumed, rest, 2) == pytest.approx(steps(through, rest, 2), rel=1e-4)
    held, wanted = copies(resumed), copies(through)
    assert all(np.allclose(held[name][0], wanted[name][0], rtol=1e-3, atol=1e-4) for name in wanted)


def start(root: Path, *channels: str, **hyperparameters: object) -> SegmentationNetwork:
    found = {name: Channel(name, root / name, "File") for name in channels}
    environment = Environment(root, {}, found, "algo-1", ("algo-1",))
    check_initial_weights(environment, job(**hyperparameters))
    return create_initial_network(environment, job(**hyperparameters), [mx.cpu()])


def arrays(network: SegmentationNetwork) -> Weights:
    return {name: value.data().asnumpy() for name, value in network._collect_params_with_prefix().items()}


def test_without_imagenet_weights_it_starts_at_random_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert all(np.isfinite(array).all() for array in arrays(start(tmp_path)).values())
    (message,) = caplog.messages
    assert message.startswith("fastscnn starts from random weights, because no ImageNet weights exist for it. To start")
    caplog.clear()
    start(tmp_path, use_pretrained_model=False)
    assert caplog.messages == []
    start(tmp_path, "pretrained")
    assert caplog.messages[0] == (
        "channel pretrained is not used: fastscnn has no backbone. Use the model channel for a complete model"
    )


@pytest.fixture(scope="module", params=["gluoncv", "imgclsmob", "imgclsmob, as it was called at first"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network]:
    """A file of four classes in a channel, and the network that it is of."""
    channel = tmp_path_factory.mktemp("published") / "model"
    channel.mkdir()
    stem = "steam" if "first" in request.param else "stem"
    theirs = FastSCNN(4, height=64, width=32) if request.param == "gluoncv" else PublishedFastSCNN(4, stem)
    theirs.initialize(mx.init.Xavier("gaussian", "in", 2), force_reinit=True)
    rng = np.random.default_rng(5)
    for name, value in theirs._collect_params_with_prefix().items():
        if name.endswith(("gamma", "beta", "running_mean", "running_var")):
            value.set_data(mx.nd.array(rng.uniform(0.5, 1.5, value.shape)))
    write_gluoncv(channel / "network.params", arrays(theirs))
    return channel.parent, theirs


def test_a_published_network_starts_the_job(published: tuple[Path, Network]) -> None:
    root, theirs = published
    started = start(root, "model", num_classes=4)
    images = random_image(64, 32)
    expected = theirs(normalized(images))
    ours = started.both_heads(mx.nd, mx.nd.array(images, dtype="uint8"))
    for head in (0, 1):
        assert_equal_logits(ours[head].asnumpy(), expected[head].asnumpy())
    with pytest.raises(
        ClientError, match=r"has num_classes=4, but this job has num_classes=3\. To reinitialize the classification lay"
    ):
        start(root, "model")
    fresh = arrays(start(root, "model", _reset_head=True))
    kept = arrays(started)
    assert {name for name in kept if not np.array_equal(kept[name], fresh[name])} == CLASSIFIERS
    with pytest.raises(
        ClientError, match=r"model has algorithm=fastscnn, but this job has algorithm=fcn\. Set algorithm=fastscnn"
    ):
        start(root, "model", algorithm="fcn", num_classes=4)


def test_weights_of_another_network_are_named(model_dir: Path, network: SegmentationNetwork, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"does not match this model \(fastscnn, 7 classes\)"):
        load_weights(create_network("fastscnn", 7), model_dir / "model_best.params", [mx.cpu()])
    (tmp_path / "model").mkdir()
    weights = {name: array for name, array in arrays(network).items() if name != "feature_fusion.bn.gamma"}
    write_gluoncv(tmp_path / "model/network.params", weights)
    with pytest.raises(ClientError, match=r"\(fastscnn, 5 classes\): feature_fusion.bn.gamma is missing"):
        start(tmp_path, "model", num_classes=CLASSES)


@pytest.mark.parametrize("switch", ["_freeze_backbone", "_freeze_batchnorm"])
def test_what_is_frozen_is_bit_equal_after_training(switch: str) -> None:
    frozen = job(**{switch: True})
    with pytest.raises(ClientError, match=rf"^{switch} cannot freeze random weights\. Add the model channel, or omit"):
        check_frozen(frozen, loaded=False)
    network = create_network("fastscnn", 3)
    initialize_weights(network)
    before = arrays(network)
    freeze_layers(network, frozen, set(before))
    network.hybridize()
    steps(Trainer(network, frozen, [mx.cpu()]), [batch(2, 0), batch(2, 1)])
    mx.nd.waitall()
    after = arrays(network)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    if switch == "_freeze_backbone":
        assert moved == {name for name in before if name.startswith(HEADS)}
    else:
        norms = {name for name in before if f"{name.rpartition('.')[0]}.gamma" in before}
        assert moved == set(before) - norms and len(norms) > 150


def test_the_log_names_no_backbone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        start(tmp_path)
    assert "resnet" not in caplog.text and "None" not in caplog.text
