"""What MXNet computes in tiles for lack of memory is what it computes at once."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from container.arrays import Uint8Array
from container.engines.mxnet import MemoryModel, MXNetEngine
from container.engines.protocol import ImageTooLargeError
from container.geometry import tiles
from container.mx.inference import evaluation, tiling
from container.mx.inference.evaluation import MXNetEvaluator
from container.mx.networks.segmentation import SegmentationNetwork
from tests.mx.test_export import CLASSES, build_network

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")

SIZE = (301, 1499)
PIXELS = SIZE[0] * SIZE[1]
FIXED, EACH = 2**27, 700 + 4.4 * CLASSES  # bytes, as container.mx.inference.tiling measured them


@pytest.fixture(scope="module")
def image() -> Uint8Array:
    drawn = np.random.default_rng(7).integers(0, 256, (20, 27, 3), np.uint8)
    return np.asarray(Image.fromarray(drawn).resize(SIZE[::-1], Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def network(image: Uint8Array) -> SegmentationNetwork:
    """A network that finds several classes in the image."""
    network = build_network("fcn", "resnet-18")
    network.hybridize()
    bias = network.head.block[4].bias
    bias.set_data(bias.data() - mx.nd.array(answer(network, image).mean((1, 2))))
    return network


@pytest.fixture(scope="module")
def logits(network: SegmentationNetwork, image: Uint8Array) -> np.ndarray:
    found = answer(network, image)
    assert len(np.unique(found.argmax(0))) > 1
    return found


def answer(network: SegmentationNetwork, image: Uint8Array) -> np.ndarray:
    logits: np.ndarray = network(mx.nd.array(image[None], dtype="uint8")).asnumpy()[0]
    return logits


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that are too few for the image at once, with tiles that may be small."""
    monkeypatch.setattr(tiling, "LEAST_PIXELS", 1000)
    monkeypatch.setattr(tiles, "least", lambda far: 1000)
    monkeypatch.setattr(tiling, "_BAND_VALUES", CLASSES * SIZE[1] * 60)
    return int(FIXED + 0.9 * PIXELS * EACH)


@pytest.mark.parametrize(
    ("algorithm", "backbone", "far"),
    [
        # Stem 3, pool 2; stages of two 3×3 convolutions a block: 4·4, 4 + 3·8, 8 + 3·16, 16 + 3·32; the head 8
        ("fcn", "resnet-18", 5 + 16 + 28 + 56 + 112 + 8),
        # Stem 1 + 2 + 2, pool 2; one 3×3 convolution a block: 3·4, 4 + 3·8, 8 + 5·16, 16 + 2·32; the head 8
        ("fcn", "resnet-50", 7 + 12 + 28 + 88 + 80 + 8),
        ("psp", "resnet-18", None),
        ("fastscnn", "", None),
    ],
)
def test_reach_is_computed_from_the_layers(algorithm: str, backbone: str, far: int | None) -> None:
    assert tiling.reach(build_network(algorithm, backbone)) == far


def test_tiles_give_the_output_of_the_full_image(
    network: SegmentationNetwork, image: Uint8Array, logits: np.ndarray, memory: int
) -> None:
    found, bands = np.empty_like(logits), 0
    for rows, band in tiling.compute(network, image, mx.cpu(), int(0.85 * PIXELS)):
        found[:, rows] = band
        bands += 1
    assert bands == 6
    np.testing.assert_allclose(found, logits, atol=1e-5)


@pytest.mark.parametrize("contexts", [[mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]], ids=len)
def test_evaluator_uses_tiles_for_images_that_do_not_fit(
    network: SegmentationNetwork,
    image: Uint8Array,
    logits: np.ndarray,
    memory: int,
    monkeypatch: pytest.MonkeyPatch,
    contexts: list[mx.Context],
) -> None:
    network.collect_params().reset_ctx(contexts)
    monkeypatch.setattr(evaluation, "_free_memory", lambda devices: memory)
    seen, compute = [], tiling.compute
    monkeypatch.setattr(tiling, "compute", lambda *given: seen.append(given[3]) or compute(*given))
    evaluator = MXNetEvaluator(network, contexts, threading.Event())
    assert evaluator.check_size(PIXELS) is None
    masks = evaluator.predict([image] * len(contexts))
    assert seen == [seen[0]] * len(contexts) and seen[0] < 0.9 * PIXELS
    for mask in masks:
        assert isinstance(mask, tuple)
        np.testing.assert_array_equal(mask[0], logits.argmax(0))
    network.collect_params().reset_ctx([mx.cpu()])


def test_engine_uses_tiles_for_images_that_do_not_fit(
    network: SegmentationNetwork, image: Uint8Array, logits: np.ndarray, memory: int, tmp_path: Path
) -> None:
    network.save_parameters(str(tmp_path / "model_best.params"))
    settings = {"num_classes": str(CLASSES), "algorithm": "fcn", "backbone": "resnet-18"}
    (tmp_path / "hyperparams.json").write_text(json.dumps(settings))
    engine = MXNetEngine(tmp_path)
    room = memory + 28 * PIXELS  # decoding a PNG of 16 bits
    plan = engine.planner.plan(*SIZE, room)
    assert plan.tile and plan.tile < 0.9 * PIXELS
    assert plan.pixels > PIXELS and plan.memory <= room
    np.testing.assert_array_equal(engine.mask(image, plan), logits.argmax(0))
    powers = np.exp(logits.astype(np.float64) - logits.max(0))
    np.testing.assert_allclose(engine.probabilities(image, plan), powers / powers.sum(0), atol=1e-5)


def test_gpu_memory_limits_tiles_and_too_large_images_are_rejected() -> None:
    costs = MemoryModel("fcn", 21, 223, device=2 * 2**30)
    pixels = 4000 * 3000
    assert pixels * (700 + 4.4 * 21) > 2 * 2**30  # at once
    plan = costs.plan(3000, 4000, 2**33)
    assert plan.tile and FIXED + plan.tile * (700 + 4.4 * 21) <= 2 * 2**30
    assert costs.plan(600, 800, 2**33).tile is None
    with pytest.raises(
        ImageTooLargeError, match=r"4000×3000 pixels need about \d+ MB; an image may take 500 MB of the GPU"
    ):
        MemoryModel("fcn", 21, 223, device=500 * 2**20).plan(
            3000, 4000, 2**33
        )  # a tile of a million pixels takes 884 MB
    with pytest.raises(ImageTooLargeError):  # in tiles of a million pixels almost all would be seen more than once
        MemoryModel("fcn", 21, 495, device=2 * 2**30).plan(3000, 4000, 2**33)
    with pytest.raises(ImageTooLargeError, match=r"may take 2048 MB of the GPU"):
        MemoryModel("psp", 21, None, device=2 * 2**30).plan(3000, 4000, 2**33)
