"""Passes that can be given up between two layers, and answer as any other."""

from __future__ import annotations

import threading
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon

from container.errors import JobCancelledError
from container.mx.inference.evaluation import MXNetEvaluator
from container.mx.inference.interruptible import interruptible
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import initialize_weights

PHOTOGRAPH = np.random.default_rng(1).integers(0, 256, (1, 72, 104, 3)).astype(np.uint8)
KINDS = ("fcn", "psp", "deeplab", "fastscnn")

pytestmark = pytest.mark.filterwarnings("ignore:Parameter .* is already initialized")


def build(kind: str) -> Any:
    network = create_network(kind, 3, None if kind == "fastscnn" else "resnet-18")
    initialize_weights(network)
    network.hybridize()
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_output_is_equal_before_within_and_after_the_context(kind: str) -> None:
    network, images = build(kind), mx.nd.array(PHOTOGRAPH, dtype="uint8")
    before = network(images).asnumpy()
    with interruptible(network, threading.Event()):
        meanwhile = network(images).asnumpy()
    np.testing.assert_allclose(meanwhile, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    np.testing.assert_array_equal(network(images).asnumpy(), before)
    assert network._active and not network._forward_pre_hooks


@pytest.mark.parametrize("kind", KINDS)
def test_no_layer_starts_after_a_stop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, until, begun = build(kind), threading.Event(), []
    network(mx.nd.array(PHOTOGRAPH, dtype="uint8")).wait_to_read()
    convolve = gluon.nn.Conv2D.hybrid_forward

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        begun.append(self)
        if len(begun) == 3:
            until.set()
        return convolve(self, *arguments, **named)

    monkeypatch.setattr(gluon.nn.Conv2D, "hybrid_forward", counted)
    with pytest.raises(JobCancelledError), interruptible(network, until):
        network(mx.nd.array(PHOTOGRAPH, dtype="uint8"))
    assert len(begun) == 3 and network._active and not network._forward_pre_hooks


@pytest.mark.parametrize("size", [(40, 56), (600, 520)], ids=["small", "long"])
def test_evaluator_stops_within_a_large_image(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one is one graph, whose layers' own code does not run again."""
    network, until, begun = build("fcn"), threading.Event(), []
    convolve = gluon.nn.Conv2D.hybrid_forward

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        begun.append(self)
        until.set()
        return convolve(self, *arguments, **named)

    evaluator = MXNetEvaluator(network, [mx.cpu()], until)
    image = np.zeros((*size, 3), np.uint8)
    expected = network(mx.nd.array(image[None], dtype="uint8")).argmax(axis=1).asnumpy()[0]
    np.testing.assert_array_equal(evaluator.predict([image])[0][0], expected)
    monkeypatch.setattr(gluon.nn.Conv2D, "hybrid_forward", counted)
    if size == (40, 56):
        evaluator.predict([image])
        assert not begun
    else:
        with pytest.raises(JobCancelledError):
            evaluator.predict([image])
        assert len(begun) == 1
