"""The trainer: iterations, validation, and weights of one model on its devices."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.contrib import amp
from mxnet.contrib.amp.loss_scaler import LossScaler

from container.arrays import Array, Uint8Array
from container.artifact import model_directory
from container.cluster.hosts import Hosts
from container.data.batches import Batch
from container.data.labels.decoding import IGNORE
from container.errors import JobCancelledError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.disk_estimate import weight_bytes
from container.mx.inference.interruptible import interruptible
from container.mx.networks.segmentation import SegmentationNetwork, TrainingLoss
from container.mx.optimization.averaging import WeightAverages
from container.mx.optimization.gradients import Accumulation, check_gradients, check_loss_scale, clip_norm
from container.mx.optimization.losses import choose_criterion
from container.mx.optimization.optimizer import create_optimizer, scales_like_gluoncv
from container.mx.replicas import average_over_hosts, check_replicas, is_statistic, mean_of, share_statistics

_LONG_SECONDS = 5.0  # of a batch, above which the next can be given up


class Trainer:
    """Trains `network` on all of `devices` at once, each taking its share of every batch."""

    def __init__(
        self,
        network: SegmentationNetwork,
        hyperparameters: Hyperparameters,
        devices: list[mx.Context],
        hosts: Hosts | None = None,
    ) -> None:
        self.hosts = hosts or Hosts(threading.Event())
        self._images = 0  # trained on here since the hosts last shared their statistics
        self.network = network
        self.devices = devices
        aux_weight = hyperparameters.aux_weight if hyperparameters.aux_loss else 0.0
        self._as_gluoncv = scales_like_gluoncv(hyperparameters)
        self._batch_size = hyperparameters.mini_batch_size
        # SoftmaxOutput, the loss of GluonCV, ignores the gradient of the loss above it
        aux_gradient = 1.0 if self._as_gluoncv and aux_weight else None
        self._label_weights: Array | None = None  # weight of each label
        weights = _initial_weights(hyperparameters)
        self._loss = TrainingLoss(network, aux_weight, aux_gradient, choose_criterion(hyperparameters), weights)
        if weights is not None:
            self._loss.class_weights.initialize(ctx=devices)
            self.set_class_weights(weights)
        static = hyperparameters.hybrid
        self._loss.hybridize(static_alloc=static, static_shape=static)
        trained = _trained(network, aux_weight > 0)
        self.optimizer = create_optimizer(trained, hyperparameters, devices, self.hosts.store)
        self._begin_as_one()
        self._mixed = hyperparameters.precision_dtype == "float16"
        if self._mixed:
            amp.init_trainer(self.optimizer)
        self._accumulate_steps = hyperparameters.accumulate
        self._largest_norm = hyperparameters.clip_norm
        self.averages = WeightAverages(network, hyperparameters.ema, static) if hyperparameters.ema else None
        self.accumulation = self._accumulate(hyperparameters)
        self._gradients_checked = False  # since this process began
        self._last: list[tuple[mx.nd.NDArray, mx.nd.NDArray, float]] = []  # inputs until they are: images, labels, mass

    def _accumulate(self, job: Hyperparameters) -> Accumulation | None:
        if job.accumulate == 1:
            return None
        pixels = float(job.mini_batch_size * job.crop**2)
        return Accumulation(self._learning, job.accumulate, len(self.devices), pixels)

    @property
    def _learning(self) -> list[gluon.Parameter]:
        """The parameters that have gradients."""
        return [parameter for parameter in self.optimizer._params if parameter.grad_req != "null"]

    def set_class_weights(self, weights: Sequence[float]) -> None:
        """Set the class weights in the loss of the next steps; only for a job with `_class_weights`.

        Only their proportions matter. The largest weight becomes 1, so that float32 can represent all.
        """
        table = np.zeros(256)
        table[: len(weights)] = np.array(weights) / max(weights)
        self._label_weights = table
        self._loss.class_weights.set_data(mx.nd.array(table[: len(weights)], dtype="float32"))

    def _begin_as_one(self) -> None:
        """Copy the weights of one device to all devices and hosts.

        MXNet does so within the first step. Then the statistics of each device from this step are lost, and a gradient
        that another host has sent before is used as the weight.
        """
        self.optimizer._init_kvstore()
        self.optimizer._init_params()
        mx.nd.waitall()
        self.hosts.sum_integers(0)

    @property
    def updates(self) -> int:
        """The number of updates of the weights."""
        return int(self.optimizer._optimizer.num_update)

    @property
    def seeds_every_step(self) -> bool:
        """Whether `seed` is cheap enough for every step; on GPUs, it initializes all generators again."""
        return bool(self.devices[0].device_type == "cpu")

    def seed(self, seed: int, epoch: int, iteration: int) -> None:
        """Seed the random numbers of the next step (dropout), which then depend only on its position in the job."""
        place = (seed, epoch, iteration) + ((self.hosts.index,) if self.hosts.index else ())
        mx.random.seed(int(np.random.SeedSequence(place).generate_state(1)[0] >> 1))

    def step(self, batch: Batch, learning_rate: float) -> list[mx.nd.NDArray]:
        """Update the weights with the mean loss over the labeled pixels of the batch, on all devices and hosts.

        With `_accumulate`, the weights change only after that many steps, with the mean over all of their pixels. With
        `_gradient_scale=gluoncv`, the gradient is the sum of the mean of each device, divided by `mini_batch_size`.
        Returns without waiting. The sum of the returned losses, one per device, is the mean loss of the batch.
        """
        images, labels = self._share(batch)
        self._images += len(batch)
        masses = [self._sum_label_weights(part) for part in labels]
        whole = (batch.labeled if self._label_weights is None else self._on_all_hosts(sum(masses))) or 1
        if self.accumulation:
            scales = [self.accumulation.nominal] * len(masses)
        else:
            scales = [mass or 1 for mass in masses] if self._as_gluoncv else [whole] * len(masses)
        inputs = list(zip(self._load(images), self._load(labels), scales, strict=True))
        if not self._gradients_checked:
            self._last = [(x, y, whole) for x, y, _ in inputs]
        with autograd.record(train_mode=len(batch) > 0):  # no statistics are gathered from no images
            sums = [(self._loss(x, y), scale) for x, y, scale in inputs]
            losses = [loss / scale for loss, scale in sums]
            if self._mixed:
                with amp.scale_loss(losses, self.optimizer) as scaled:
                    autograd.backward(scaled)
        if not self._mixed:
            autograd.backward(losses)
        parts = [loss / whole for loss, _ in sums]  # before the check of gradients computes losses
        if self.accumulation is None:
            self._update(self._batch_size if self._as_gluoncv else 1, learning_rate)
        else:
            self.accumulation.add(masses)
            if self.accumulation.full:
                self.flush(learning_rate)
        return self.hosts.sum_losses(parts)

    def flush(self, learning_rate: float) -> None:
        """Update the weights with the gradients accumulated since the last update, if there are any."""
        gathered = self.accumulation
        if gathered and gathered.made:
            gathered.finish(None if self._as_gluoncv else self._on_all_hosts(sum(gathered.masses)))
            if self._mixed:  # a resumed job without a step does not know the scale of the loaded gradients
                scaler = self.optimizer._amp_loss_scaler
                self.optimizer._scale = self.optimizer._amp_original_scale / scaler.loss_scale
            self._update(self._batch_size * gathered.made if self._as_gluoncv else 1, learning_rate)
            gathered.clear()

    def can_checkpoint(self, iteration: int) -> bool:
        """Return whether a checkpoint after this number of iterations of an epoch contains the complete state.

        A checkpoint contains the accumulated gradients of one host. With several hosts, there must be none.
        """
        return self.hosts.count == 1 or iteration % self._accumulate_steps == 0

    def discard_accumulated(self) -> None:
        """Discard the gradients since the last update."""
        if self.accumulation:
            self.accumulation.clear()

    def reset_optimizer(self) -> None:
        """Reset the optimizer to its initial state."""
        self._images = 0
        for updater in self.optimizer._updaters:
            updater.states.clear()
            updater.states_synced.clear()
        inner = self.optimizer._optimizer
        inner.begin_num_update = inner.num_update = 0
        for counts in inner._all_index_update_counts.values():
            counts.clear()
        if self._mixed:
            self.optimizer._amp_loss_scaler = LossScaler()
        self.discard_accumulated()

    def _update(self, batch_size: int, learning_rate: float) -> None:
        """Update the weights with the gradients divided by `batch_size`."""
        self.optimizer.set_learning_rate(learning_rate)
        self.optimizer.allreduce_grads()
        if not self._gradients_checked:
            self._check_gradients()
        if self._largest_norm is not None:
            clip_norm(self._learning, self.optimizer._scale / batch_size, self._largest_norm)
        self.optimizer.update(batch_size)
        if self._mixed:
            check_loss_scale(self.optimizer._amp_loss_scaler.loss_scale)
        if self.averages:
            self.averages.update(self.updates)

    def _check_gradients(self) -> None:
        """Check the gradients of the first update of this process, and wait for them."""
        learning = {id(parameter) for parameter in self._learning}
        parameters = self.network._collect_params_with_prefix()
        own = {name: each for name, each in parameters.items() if id(each) in learning}
        self._gradients_checked = check_gradients(own, self._last_loss)
        self._last = []

    def _last_loss(self) -> float:
        """Return the loss of the last batch with a fixed dropout, without a change of the statistics."""
        mx.nd.waitall()  # as in `unite`
        statistics = [array for _, each in self._statistics for array in each.list_data()]
        before = [array.copy() for array in statistics]
        mx.random.seed(0)
        with autograd.train_mode():
            losses = [self._loss(x, y) / whole for x, y, whole in self._last]
        total = float(sum(loss.asscalar() for loss in losses))
        mx.nd.waitall()
        for array, own in zip(statistics, before, strict=True):
            own.copyto(array)
        return total

    def _sum_label_weights(self, labels: Array) -> float:
        """Return the number of labeled pixels, or the sum of their weights with class weights."""
        if self._label_weights is None:
            return int((labels != IGNORE).sum())
        return float(self._label_weights[labels.astype(np.uint8)].sum())

    def _on_all_hosts(self, mass: float) -> float:
        """Sum a number over all hosts; every host calls it at the same point."""
        return mass if self.hosts.count == 1 else float(self.hosts.sum_array(np.array([mass], np.float32))[0])

    def evaluated_weights(self) -> contextlib.AbstractContextManager[None]:
        """Use the weights that are saved and served during the block: their moving averages, if `_ema` is set."""
        return self.averages.shown() if self.averages else contextlib.nullcontext()

    def synchronize_replicas(self) -> None:
        """Check that all devices and hosts have equal weights, and set the mean of their statistics on all.

        Raises AlgorithmError that names a parameter whose weights differ, Diverged for one that is not finite. Every
        host calls it at the same point.
        """
        self.share_statistics()
        check_replicas(self.network, self.devices, self.hosts)

    def share_statistics(self) -> None:
        """Set the mean of the running statistics on all devices, in which hosts count by their trained images.

        Every host calls it at the same point.
        """
        (images,) = self.hosts.sum_integers(self._images)
        share_statistics(self.network, self.devices)
        parts = self.hosts, self._images, images
        average_over_hosts([each.list_data() for name, each in self._statistics], *parts)
        if self.averages:
            average_over_hosts([[self.averages.arrays[name]] for name, _ in self._statistics], *parts)
        self._images = 0

    def evaluate(
        self, batches: Iterable[Batch], num_classes: int, watch: Callable[[Batch, Array], None] | None = None
    ) -> tuple[ConfusionMatrix, int]:
        """Score the network on every image of every host's `batches`; also returns how many images there were.

        `watch` is shown every batch with its predictions, uint8 (N, H, W). A batch that is being
        computed at the stop request is not always counted.
        """
        confusion, count, seconds = ConfusionMatrix(num_classes), 0, 0.0
        on_host = self.devices[0].device_type == "cpu"
        with self.evaluated_weights():
            for batch in batches:
                if not len(batch):
                    continue
                images, _ = self._share(batch)
                start, is_long = time.monotonic(), on_host and seconds > _LONG_SECONDS
                try:
                    with interruptible(self.network, self.hosts.stop_requested, is_long):
                        predictions = [self.network(part).argmax(axis=1) for part in self._load(images)]
                except JobCancelledError:
                    continue  # on several hosts, the next batch is where all of them end
                classes = np.concatenate([part.asnumpy() for part in predictions])
                seconds = time.monotonic() - start
                confusion.update(batch.labels, classes[: len(batch)])
                count += len(batch)
                if watch:
                    watch(batch, classes[: len(batch)].astype(np.uint8))
        count, *counts = self.hosts.sum_integers(count, *map(int, confusion.counts.flat))
        confusion.counts[:] = np.reshape(counts, confusion.counts.shape)
        return confusion, count

    def probabilities(self, image: Uint8Array) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        logits = self.network(mx.nd.array(image[None], dtype="uint8", ctx=self.devices[0]))
        answer: Array = logits.astype("float32").softmax(axis=1).asnumpy()[0]
        return answer

    def save_weights(self, path: Path) -> None:
        """Write all weights, the auxiliary head's included, as a Gluon parameter file: their averages with `_ema`."""
        mx.nd.waitall()  # as in `unite`
        weights = self.averages.arrays if self.averages else self.own_weights()
        model_directory.write_weights(path, lambda name: mx.nd.save(name, weights), weight_bytes(self.network))

    def copy_weights(self) -> dict[str, mx.nd.NDArray]:
        """Return a copy of all weights, in the host's memory."""
        return {name: array.copyto(mx.cpu()) for name, array in self.own_weights().items()}

    def set_own_weights(self, weights: Mapping[str, mx.nd.NDArray]) -> None:
        """Take over what `own_weights` returned, on every device; averages stay."""
        for name, parameter in self.network._collect_params_with_prefix().items():
            parameter.set_data(weights[name])

    def set_weights(self, weights: Mapping[str, mx.nd.NDArray]) -> None:
        """Begin with what `copy_weights` returned."""
        self.set_own_weights(weights)
        if self.averages:
            self.averages.begin()

    @property
    def _statistics(self) -> list[tuple[str, gluon.Parameter]]:
        parameters = self.network._collect_params_with_prefix()
        return [(name, each) for name, each in parameters.items() if is_statistic(name)]

    def own_weights(self) -> dict[str, mx.nd.NDArray]:
        """Return the weights that are being trained, statistics as the mean of the devices'."""
        return {
            name: mean_of(parameter.list_data()) if is_statistic(name) else parameter.list_data()[0]
            for name, parameter in self.network._collect_params_with_prefix().items()
        }

    def load_weights(self, path: Path) -> None:
        """Load weights that `save_weights` wrote."""
        self.network.load_parameters(str(path), ctx=self.devices)
        if self.averages:
            self.averages.begin()

    def _share(self, batch: Batch) -> tuple[list[Array], list[Array]]:
        """Split a batch over the devices: uint8 images, float32 labels.

        A batch smaller than the devices is filled up with unlabeled images: every device takes part in
        every step, and those add nothing to its loss.
        """
        images, labels = batch.images, batch.labels.astype(np.float32)
        if (lacking := len(self.devices) - len(batch)) > 0:
            filling = images[-1:] if len(batch) else np.zeros((1, *images.shape[1:]), images.dtype)
            images = np.concatenate([images, filling.repeat(lacking, axis=0)])
            labels = np.concatenate([labels, np.full((lacking, *labels.shape[1:]), IGNORE, labels.dtype)])
        return np.array_split(images, len(self.devices)), np.array_split(labels, len(self.devices))

    def _load(self, parts: list[Array]) -> list[mx.nd.NDArray]:
        return [
            mx.nd.array(part, ctx=device, dtype=part.dtype) for part, device in zip(parts, self.devices, strict=True)
        ]


def _initial_weights(job: Hyperparameters) -> list[float] | None:
    """Return the weights of classes to begin with, none of them known yet unless the job gives them."""
    if job.class_weights is None or isinstance(job.class_weights, list):
        return job.class_weights
    return [1.0] * job.num_classes


def _trained(network: SegmentationNetwork, auxiliary: bool) -> gluon.ParameterDict:
    """Return the parameters that receive gradients; the auxiliary head's do only when its loss counts."""
    parameters = network.collect_params()
    if auxiliary:
        return parameters
    unused = network.auxlayer.collect_params()
    trained = gluon.ParameterDict(parameters.prefix)
    trained._params = type(parameters._params)((k, v) for k, v in parameters.items() if k not in unused)
    return trained
