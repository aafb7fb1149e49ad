"""What is frozen is bit-equal after training, and what is not has moved."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from container.data.batches import Batch
from container.errors import ClientError
from container.hyperparameters import Hyperparameters, load
from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
from container.mx.optimization.freeze import freeze_layers
from container.mx.trainer import Trainer
from container.mx.weights.initial_weights import check_frozen

ONE, TWO = [mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]
AFFINE, STATISTICS = (".gamma", ".beta"), (".running_mean", ".running_var")

Weights = dict[str, np.ndarray]


def job(**changes: object) -> Hyperparameters:
    return load({"num_classes": 3, "num_training_samples": 4, "backbone": "resnet-18", **changes})


def arrays(network: SegmentationNetwork, device: mx.Context) -> Weights:
    return {name: value.data(device).asnumpy() for name, value in network._collect_params_with_prefix().items()}


def trained(devices: list[mx.Context], loaded: tuple[str, ...], **switches: object) -> tuple[Weights, Weights]:
    """Train two steps; returns the weights before and after, and holds the devices to be in step."""
    network = SegmentationNetwork("fcn", "resnet-18", 3)
    initialize_weights(network)
    for name, parameter in network._collect_params_with_prefix().items():
        if name.endswith("running_mean"):
            parameter.set_data(mx.nd.full(parameter.shape, 0.25))
    freeze_layers(network, job(**switches), {name for name in arrays(network, ONE[0]) if name.startswith(loaded)})
    network.collect_params().reset_ctx(devices)
    network.hybridize()
    before = arrays(network, devices[0])
    trainer = Trainer(network, job(**switches), devices)
    rng = np.random.default_rng(0)
    for _ in range(2):
        images = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
        trainer.step(Batch(images, rng.integers(0, 3, (2, 32, 32)).astype(np.uint8)), 0.01)
    mx.nd.waitall()
    after = arrays(network, devices[0])
    for device in devices[1:]:
        copies = arrays(network, device)
        alike = [name for name in after if not (is_head(name) and name.endswith(STATISTICS))]  # those are each device's
        assert all(np.array_equal(after[name], copies[name]) for name in alike)
    return before, after


def is_head(name: str) -> bool:
    return name.startswith(("head.", "auxlayer."))


@pytest.mark.parametrize("devices", [ONE, TWO], ids=["one device", "two devices"])
def test_a_frozen_backbone_is_bit_equal_afterwards(devices: list[mx.Context]) -> None:
    before, after = trained(devices, ("conv", "bn", "layer"), _freeze_backbone=True)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if is_head(name)}  # the heads' statistics included


@pytest.mark.parametrize("everything", [False, True], ids=["a backbone was loaded", "a whole network was loaded"])
def test_frozen_batch_norms_keep_statistics_and_scale(everything: bool) -> None:
    loaded = ("conv", "bn", "layer", *(("head.", "auxlayer.") if everything else ()))
    before, after = trained(ONE, loaded, _freeze_batchnorm=True)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    kept = {name for name in before if name.endswith(STATISTICS) or f"{name.rpartition('.')[0]}.gamma" in before}
    expected_kept = {name for name in kept if everything or not is_head(name)}
    assert moved == set(before) - expected_kept
    assert {name for name in expected_kept if name.endswith(AFFINE)} and len(expected_kept) > 60


def test_nothing_is_frozen_unless_asked() -> None:
    before, after = trained(ONE, ("conv", "bn", "layer"))
    assert not [name for name in before if np.array_equal(before[name], after[name])]


def test_a_frozen_norm_uses_what_was_loaded_while_training() -> None:
    network = SegmentationNetwork("fcn", "resnet-18", 3)
    initialize_weights(network)
    network.bn1.running_mean.set_data(mx.nd.full(64, 2))
    network.bn1.running_var.set_data(mx.nd.full(64, 4 - 1e-5))  # eps is added to it
    freeze_layers(network, job(_freeze_batchnorm=True), set(arrays(network, ONE[0])))
    x = mx.nd.arange(64).reshape((1, 64, 1, 1))
    with mx.autograd.record():
        y = network.bn1(x)
    np.testing.assert_allclose(y.asnumpy()[0, :, 0, 0], (np.arange(64) - 2) / 2, rtol=1e-6)


def test_random_weights_are_not_frozen() -> None:
    check_frozen(job(), loaded=False)
    check_frozen(job(_freeze_backbone=True), loaded=True)
    with pytest.raises(
        ClientError, match=r"_freeze_backbone and _freeze_batchnorm cannot freeze random weights\. Set use_pre"
    ):
        check_frozen(job(_freeze_backbone=True, _freeze_batchnorm=True), loaded=False)
