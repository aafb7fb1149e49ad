"""The networks against GluonCV's own, and at sizes where GluonCV's own fail."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo.deeplabv3 import DeepLabV3
from gluoncv.model_zoo.fcn import FCN
from gluoncv.model_zoo.pspnet import PSPNet
from mxnet import autograd

from container.errors import ClientError
from container.mx.networks.segmentation import (
    SegmentationNetwork,
    TrainingLoss,
    cross_entropy,
    initialize_weights,
    load_weights,
    resize_like,
)

GLUONCV = {"fcn": FCN, "psp": PSPNet, "deeplab": DeepLabV3}
ALGORITHMS = list(GLUONCV)


@pytest.fixture(scope="module", params=ALGORITHMS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SegmentationNetwork, object]:
    """GluonCV's network, and ours with its parameter file."""
    mx.random.seed(1)
    theirs = GLUONCV[request.param](nclass=3, backbone="resnet50", pretrained_base=False, crop_size=64)
    theirs.initialize(mx.init.Xavier(), force_reinit=True)
    theirs(mx.nd.zeros((1, 3, 64, 64)))  # settles its shapes
    path = tmp_path_factory.mktemp("weights") / "gluoncv.params"
    theirs.save_parameters(str(path))
    ours = SegmentationNetwork(request.param, "resnet-50", 3)
    load_weights(ours, path, [mx.cpu()])
    ours.hybridize()
    return ours, theirs


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (1, height, width, 3), np.uint8)


def normalize(image: np.ndarray) -> np.ndarray:
    scaled = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return scaled.transpose(0, 3, 1, 2).astype(np.float32)


def test_one_graph_answers_as_gluoncv_at_every_size_in_any_order(pair: tuple[SegmentationNetwork, object]) -> None:
    ours, theirs = pair
    for height, width in ((64, 64), (40, 56), (7, 133), (1, 1), (64, 64)):
        image = photograph(height, width)
        expected = theirs.predict(mx.nd.array(normalize(image)))
        expected = (expected[0] if isinstance(expected, tuple) else expected).asnumpy()
        answer = ours(mx.nd.array(image, dtype="uint8")).asnumpy()
        assert answer.shape == (1, 3, height, width)
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_our_parameter_file_fits_gluoncv(pair: tuple[SegmentationNetwork, object], tmp_path: Path) -> None:
    ours, theirs = pair
    ours.save_parameters(str(tmp_path / "ours.params"))
    kernel = theirs.conv1[0].weight
    expected = kernel.data().asnumpy()
    kernel.set_data(mx.nd.zeros(kernel.shape))
    theirs.load_parameters(str(tmp_path / "ours.params"))
    assert np.array_equal(kernel.data().asnumpy(), expected)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    small = SegmentationNetwork("fcn", "resnet-50", 2)
    initialize_weights(small)
    small.save_parameters(str(tmp_path / "model_best.params"))
    with pytest.raises(ClientError, match=r"model_best\.params does not match this model"):
        load_weights(SegmentationNetwork("fcn", "resnet-50", 3), tmp_path / "model_best.params", [mx.cpu()])
    (tmp_path / "model_best.params").write_bytes(b"no parameters")
    with pytest.raises(ClientError, match=r"model_best\.params does not match this model"):
        load_weights(small, tmp_path / "model_best.params", [mx.cpu()])


def test_cross_entropy_is_finite_and_exact() -> None:
    logits = mx.nd.array([[[[100.0, 0.0, 5.0]], [[-21.0, 0.0, 900.0]]]])  # (1, 2, 1, 3)
    labels = mx.nd.array([[[1.0, 0.0, 255.0]]])
    logits.attach_grad()
    with autograd.record():
        loss = cross_entropy(mx.nd, logits, labels)
    loss.backward()
    assert loss.asscalar() == pytest.approx(121 + np.log(2))
    expected = [[[1, -0.5, 0]], [[-1, 0.5, 0]]]  # softmax − one-hot where labeled
    np.testing.assert_allclose(logits.grad.asnumpy()[0], expected, atol=1e-6)


def test_the_auxiliary_head_counts_by_its_weight() -> None:
    network = SegmentationNetwork("fcn", "resnet-50", 2)
    initialize_weights(network)
    images, labels = mx.nd.array(photograph(32, 32), dtype="uint8"), mx.nd.zeros((1, 32, 32))
    losses = {weight: TrainingLoss(network, weight)(images, labels).asscalar() for weight in (0.0, 0.5, 1.0)}
    assert losses[1.0] - losses[0.5] == pytest.approx(losses[0.5] - losses[0.0], rel=1e-4)
    assert losses[0.5] > losses[0.0] > 0


@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_the_array_that_gives_the_size_has_no_gradient(side: int) -> None:
    x, like = mx.nd.ones((1, 2, 2, 2)), mx.nd.ones((1, 2, side, side))
    for array in (x, like):
        array.attach_grad()
        array.grad[:] = 7  # what the memory happens to contain
    with autograd.record():
        resized = resize_like(mx.nd, x, like)
    resized.backward()
    assert x.grad.sum().asscalar() == pytest.approx(2 * side**2)
    assert not like.grad.asnumpy().any()
