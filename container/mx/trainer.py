"""One network on its devices: a training step, an evaluation, weights in and out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.contrib import amp

from container import artifacts
from container.data.batches import Batch
from container.data.reading import IGNORE
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.network import SegmentationNetwork, TrainingLoss
from container.mx.optimizer import create_optimizer
from container.mx.room import weight_bytes


class Trainer:
    """Trains `network` on all of `devices` at once, each taking its share of every batch."""

    def __init__(
        self, network: SegmentationNetwork, hyperparameters: Hyperparameters, devices: list[mx.Context]
    ) -> None:
        self.network = network
        self._devices = devices
        aux_weight = hyperparameters.aux_weight if hyperparameters.aux_loss else 0.0
        self._loss = TrainingLoss(network, aux_weight)
        static = hyperparameters.hybrid
        self._loss.hybridize(static_alloc=static, static_shape=static)
        self._optimizer = create_optimizer(_trained(network, aux_weight > 0), hyperparameters, devices)
        self._mixed = hyperparameters.precision_dtype == "float16"
        if self._mixed:
            amp.init_trainer(self._optimizer)

    def step(self, batch: Batch, learning_rate: float) -> list[mx.nd.NDArray]:
        """Update the weights once by the mean loss over the batch's labelled pixels, wherever they lie.

        Returns at once, with each device's part of that mean: adding and reading them waits for the step.
        """
        images, labels = self._share(batch)
        labelled = max(1, int((batch.labels != IGNORE).sum()))
        with autograd.record():
            losses = [self._loss(x, y) / labelled for x, y in zip(images, labels, strict=True)]
            if self._mixed:
                with amp.scale_loss(losses, self._optimizer) as scaled:
                    autograd.backward(scaled)
        if not self._mixed:
            autograd.backward(losses)
        self._optimizer.set_learning_rate(learning_rate)
        self._optimizer.step(1)
        return losses

    def evaluate(self, batches: Iterable[Batch], num_classes: int) -> tuple[ConfusionMatrix, int]:
        """Score the network on every image of `batches`; also returns how many images there were."""
        confusion, count = ConfusionMatrix(num_classes), 0
        for batch in batches:
            images, _ = self._share(batch)
            predictions = [self.network(part).argmax(axis=1) for part in images]
            classes = np.concatenate([part.asnumpy() for part in predictions])
            confusion.update(batch.labels, classes[: len(batch)])
            count += len(batch)
        return confusion, count

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        logits = self.network(mx.nd.array(image[None], dtype="uint8", ctx=self._devices[0]))
        answer: np.ndarray = logits.astype("float32").softmax(axis=1).asnumpy()[0]
        return answer

    def save_weights(self, path: Path) -> None:
        """Write all weights, the auxiliary head's included, as a Gluon parameter file."""
        artifacts.write_weights(path, self.network.save_parameters, weight_bytes(self.network))

    def load_weights(self, path: Path) -> None:
        """Load weights that `save_weights` wrote."""
        self.network.load_parameters(str(path), ctx=self._devices)

    def save_optimizer(self, path: Path) -> None:
        """Write the optimizer's arrays as an MXNet file: `<parameter>.<array>`, and `updates`, their number so far.

        Trainer.save_states would pickle them, and unpickling runs what the file says.
        """
        arrays = {"updates": mx.nd.array([self._optimizer._optimizer.num_update])}
        for index, state in self._optimizer._updaters[0].states.items():
            parts = state if isinstance(state, tuple) else () if state is None else (state,)
            arrays |= {f"{index}.{number}": part for number, part in enumerate(parts)}
        artifacts.write_weights(path, lambda name: mx.nd.save(name, arrays))

    def load_optimizer(self, path: Path) -> None:
        """Load what `save_optimizer` wrote; every device takes its copy when it first needs it."""
        arrays = mx.nd.load(str(path))
        optimizer = self._optimizer._optimizer
        optimizer.begin_num_update = optimizer.num_update = int(arrays.pop("updates").asscalar())
        parts: dict[int, list[mx.nd.NDArray]] = {}
        for name in sorted(arrays):
            parts.setdefault(int(name.split(".")[0]), []).append(arrays[name])
        for updater in self._optimizer._updaters:
            updater.states = {index: tuple(part) if len(part) > 1 else part[0] for index, part in parts.items()}
            updater.states_synced = dict.fromkeys(parts, False)

    def _share(self, batch: Batch) -> tuple[list[mx.nd.NDArray], list[mx.nd.NDArray]]:
        """Split a batch over the devices: uint8 images, float32 labels.

        A batch smaller than the devices is filled up with unlabelled images: every device takes part in
        every step, and those add nothing to its loss.
        """
        images, labels = batch.images, batch.labels.astype(np.float32)
        if (lacking := len(self._devices) - len(batch)) > 0:
            images = np.concatenate([images, np.repeat(images[-1:], lacking, axis=0)])
            labels = np.concatenate([labels, np.full_like(labels[:1], IGNORE).repeat(lacking, axis=0)])
        return self._split(images), self._split(labels)

    def _split(self, array: np.ndarray) -> list[mx.nd.NDArray]:
        whole = mx.nd.array(array, ctx=mx.cpu(), dtype=array.dtype)
        parts: list[mx.nd.NDArray] = gluon.utils.split_and_load(whole, self._devices, even_split=False)
        return parts


def _trained(network: SegmentationNetwork, auxiliary: bool) -> gluon.ParameterDict:
    """Return the parameters that receive gradients; the auxiliary head's do only when its loss counts."""
    parameters = network.collect_params()
    if auxiliary:
        return parameters
    unused = network.auxlayer.collect_params()
    trained = gluon.ParameterDict(parameters.prefix)
    trained._params = type(parameters._params)((k, v) for k, v in parameters.items() if k not in unused)
    return trained
