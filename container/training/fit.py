"""The training loop: iterations, validation, best weights, log lines."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from typing import Any

from tqdm import tqdm

from container import metrics
from container.cluster.agreement import sum_class_counts
from container.data.batches import Batch
from container.data.loader import Loader
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.replicas import TrainingDivergedError
from container.mx.trainer import Trainer
from container.training.checkpoints.manager import LONG_STEP_SECONDS, CheckpointManager
from container.training.checkpoints.progress import Progress
from container.training.divergence import DivergenceHandler
from container.training.metric_log import MetricLogger
from container.training.report.reporter import Reporter
from container.training.schedule import EarlyStopping, learning_rate, warmed_up
from container.training.scoring.validation import Validation

LOG = logging.getLogger(__name__)


class TrainingLoop:
    """Training of one job from `progress` on, equal on every host. If the job is stopped, no more iterations start.

    `reporter` is None on all hosts except the first.
    """

    def __init__(
        self,
        job: Hyperparameters,
        trainer: Trainer,
        checkpoints: CheckpointManager,
        progress: Progress,
        reporter: Reporter | None = None,
    ) -> None:
        self._job = job
        self._trainer = trainer
        self._hosts = trainer.hosts
        self._stop = trainer.hosts.stop
        self._checkpoints = checkpoints
        self._progress = progress
        self._metrics = MetricLogger(trainer.hosts)
        self._validation = Validation(trainer, job, trainer.hosts, self._metrics, reporter)
        self._divergence = DivergenceHandler(trainer, job, checkpoints, progress)
        self._reporter = reporter
        self._is_seeded = False  # whether this process has set the random seed
        self._has_class_counts = False
        self._at_update = progress  # progress at the last update of the weights
        self._pending: tuple[Batch, list[Any]] | None = None  # iteration that the devices compute, with its losses
        self._wait_seconds = LONG_STEP_SECONDS  # time that the last iteration was waited for
        self._timed_until = 0.0  # time up to which the seconds of the epoch are counted

    def run(self, train: Loader, validation: Loader) -> bool:
        """Train until the last epoch, an early stop, or `stop`, and write the best and last weights.

        Returns False, and writes nothing, if the job was stopped before anything was trained.
        """
        progress = self._progress
        self._metrics.log(
            "LRScheduler setup: iters per epoch: %d, num_epochs %d", progress.iterations, self._job.epochs
        )
        self._metrics.begin()
        self._set_class_weights(train, self._job.epochs - progress.epoch)
        try:
            try:
                self._train_epochs(train, validation)
            except TrainingDivergedError as error:
                self._divergence.retry(error, train)
                self._train_epochs(train, validation)
        except TrainingDivergedError as error:
            self._divergence.finish(error)
            return True
        if not (progress.history or progress.iteration):
            return False
        if progress.best is None:
            self._checkpoints.save_best(progress)
        self._checkpoints.save_last()
        return True

    def _train_epochs(self, train: Loader, validation: Loader) -> None:
        """Train and validate the remaining epochs: none if an earlier start completed them or stopped early."""
        progress, early, over = self._progress, EarlyStopping(self._job), False
        for entry in progress.scored:
            over = early.update(entry["epoch"], entry["mIOU"])
        if over:
            LOG.info("Nothing to train: the job stopped early after epoch %d.", progress.epoch - 1)
        elif progress.epoch >= self._job.epochs:
            LOG.info("Nothing to train: all %d epochs are complete. To continue, increase epochs.", self._job.epochs)
        while not over and progress.epoch < self._job.epochs:
            self._divergence.prepare()
            is_complete = progress.trained or self._train_epoch(train)
            validates = progress.epoch + 1 == self._job.epochs or (
                (progress.epoch + 1) % self._job.validation_interval == 0
            )
            if is_complete and validates and self._hosts.broadcast_integer(self._validation.is_long):
                self._checkpoints.save_fallback(progress)
            result = self._validation.score(validation, progress.epoch) if is_complete and validates else None
            if not is_complete or (validates and result is None):
                LOG.warning("stopping on request, in epoch %d", progress.epoch)
                if progress.iteration:
                    self._checkpoints.checkpoint(progress)
                return
            over = self._close_epoch(result, early)

    def _close_epoch(self, result: ConfusionMatrix | None, early: EarlyStopping) -> bool:
        """Log and save a complete epoch; `result` is None without validation. Returns whether the job stops early."""
        progress = self._progress
        epoch, loss = progress.epoch, progress.loss / progress.iteration
        improved = result is not None and result.miou > (progress.best["mIOU"] if progress.best else -math.inf)
        values = {"train_loss": loss}
        if result:
            values |= {"mIOU": result.miou, "pixel_accuracy": result.pixel_accuracy}
        values["learning_rate"] = self._rate(epoch, 0)
        if progress.seconds:  # unknown for an epoch that an earlier version trained
            values |= {"train_throughput": progress.samples / progress.seconds, "train_seconds": progress.seconds}
        progress.close_epoch({**values, **(self._validation.values if result else {})})
        if self._reporter:
            self._reporter.epoch(progress.history, result.counts if result else None, self._validation.images)
        if improved:
            self._checkpoints.save_best(progress)
        self._checkpoints.checkpoint(progress)
        self._metrics.progress(epoch + 1, self._job.epochs)
        if over := result is not None and early.update(epoch, result.miou):
            LOG.info("early stopping after epoch %d: the validation mIOU no longer improves", epoch)
        return over

    def _train_epoch(self, train: Loader) -> bool:
        """Train the rest of the epoch; returns False if the job was stopped before its end."""
        progress = self._progress
        start, self._timed_until = time.time(), time.monotonic()
        self._train_iterations(train)
        if self._stop.is_set():
            return False
        if not progress.iteration:
            raise ClientError("every training sample was skipped as unusable: see the warnings above")
        progress.trained = True
        self._trainer.flush(self._iteration_rate(progress.iteration - 1))
        self._trainer.synchronize_replicas()
        self._set_class_weights(train, self._job.epochs - progress.epoch - 1)
        self._update_iterations(progress.iteration, progress.samples)
        loss = progress.loss / progress.iteration
        self._count_seconds()
        end, throughput = time.time(), progress.samples / progress.seconds
        self._metrics.quality(progress.epoch, "train loss", loss)
        self._metrics.throughput(progress.epoch, "train", throughput)
        values = {"train_loss": loss, "train_throughput": throughput}
        self._metrics.training(progress.epoch, start, end, (progress.iteration, progress.samples), values)
        return True

    def _train_iterations(self, train: Loader) -> None:
        """Train the iterations of the epoch; while the devices compute one, its predecessor is counted."""
        progress, iteration = self._progress, self._progress.iteration
        self._at_update, self._pending, self._wait_seconds = dataclasses.replace(progress), None, LONG_STEP_SECONDS
        throughput = _Throughput(self._job.logging_frequency)
        batches = train.training_epoch(progress.epoch, progress.groups)
        bar = tqdm(
            batches, f"epoch {progress.epoch}", progress.iterations, leave=False, disable=None, initial=iteration
        )
        with contextlib.closing(batches), bar:
            for batch in self._hosts.synchronize_batches(iter(bar), self._job.crop):
                self._log_iteration(iteration, throughput, self._iteration_rate(iteration))
                self._train_iteration(batch, iteration)
                iteration += 1
                throughput.add(batch.size, iteration)
                if self._stop.is_set():
                    break
                if self._trainer.can_checkpoint(iteration) and (write := self._checkpoints.due(self._wait_seconds)):
                    self._wait_for_pending()
                    write(progress)
        # the next iteration is the first of the next epoch, unless the job was stopped within this epoch
        position = progress.epoch + min(1.0, iteration / progress.iterations)
        self._log_iteration(iteration, throughput, self._rate(position, iteration))
        self._wait_for_pending()
        if self._stop.is_set() and not self._trainer.can_checkpoint(progress.iteration):
            progress.return_to(self._at_update)  # a resumed job repeats the iterations since the last update
            self._trainer.discard_accumulated()

    def _train_iteration(self, batch: Batch, iteration: int) -> None:
        """Start iteration `iteration` of the epoch, and wait for the one before it.

        So a device always has an iteration to compute, and never a long queue. If iterations take long, wait for this
        one, too, because a stop must not wait for two of them.
        """
        if self._trainer.seeds_every_step or iteration == 0 or not self._is_seeded:
            self._trainer.seed(self._job.seed or 0, self._progress.epoch, iteration)
        self._is_seeded = True
        losses = self._trainer.step(batch, self._iteration_rate(iteration))
        self._wait_for_pending()
        self._pending = batch, losses
        if self._wait_seconds >= LONG_STEP_SECONDS:
            self._wait_for_pending()

    def _wait_for_pending(self) -> None:
        """Wait for the pending iteration, if any, and add it to the progress.

        Raises TrainingDivergedError if its loss is not finite.
        """
        if self._pending is None:
            return
        batch, losses = self._pending
        start = time.monotonic()
        loss = float(sum(part.asscalar() for part in losses))
        if not math.isfinite(loss):
            raise TrainingDivergedError(f"the loss is {loss}")
        self._pending = None
        progress = self._progress
        progress.iteration += 1
        progress.groups = batch.group + 1
        progress.samples += batch.size
        progress.loss += loss
        self._wait_seconds = time.monotonic() - start
        self._count_seconds()
        if self._trainer.can_checkpoint(progress.iteration):
            self._at_update = dataclasses.replace(progress)

    def _log_iteration(self, iteration: int, throughput: _Throughput, rate: float) -> None:
        """Log the throughput, if it is due, and report it; `rate` is the learning rate of the next iteration."""
        progress, speed = self._progress, throughput.take()
        if not speed:
            return
        self._metrics.log(metrics.notice_line(progress.epoch, iteration, speed, rate))
        if self._reporter:
            values = {"learning_rate": rate, "samples_per_second": speed}
            if progress.iteration:
                values["loss"] = progress.loss / progress.iteration
            self._reporter.iteration(progress.steps + iteration, values)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self._progress.seconds += now - self._timed_until
        self._timed_until = now

    def _iteration_rate(self, iteration: int) -> float:
        """Return the learning rate of an iteration; extra iterations have the rate of the last planned iteration."""
        planned = min(iteration, self._progress.iterations - 1) / self._progress.iterations
        return self._rate(self._progress.epoch + planned, iteration)

    def _rate(self, position: float, iteration: int) -> float:
        """Return the learning rate at `position` of the schedule, in epochs, for an iteration of this epoch."""
        rate = learning_rate(self._job, position) * warmed_up(self._job, self._progress.steps + iteration)
        return rate * self._divergence.factor

    def _set_class_weights(self, train: Loader, epochs: int) -> None:
        """Apply `_class_weights` as soon as all hosts have counted the classes; `epochs` is the number that remains."""
        kind = self._job.class_weights
        if self._has_class_counts or not self._job.counts_classes:
            return
        counts = sum_class_counts(self._hosts, train, self._job.num_classes)
        self._has_class_counts = counts is not None
        if not isinstance(kind, str):
            return
        if counts is None:
            LOG.warning(
                "_class_weights=%s %s: the epoch counts the classes of the stream; in File mode, they are counted "
                "before it, and a list of weights needs no count",
                kind,
                "begins after the first pass" if epochs > 1 else "has no effect in the only pass",
            )
        elif epochs > 0:
            weights = counts.weights(kind)
            self._trainer.set_class_weights(weights)
            LOG.info("_class_weights=%s: %s", kind, ", ".join(f"{n}: {weight:.4g}" for n, weight in enumerate(weights)))

    def _update_iterations(self, iterations: int, samples: int) -> None:
        """Plan the next epochs with the number of iterations of this epoch; log a warning if it is unexpected."""
        progress = self._progress
        if iterations != progress.iterations and not progress.history:
            LOG.warning(
                "num_training_samples is %d, but the first epoch trained on %d samples: "
                "the learning rate now follows the counted samples",
                self._job.num_training_samples,
                samples,
            )
        elif abs(iterations - progress.iterations) > 1:  # the rollover between passes changes it by one at most
            LOG.warning(
                "epoch %d had %d iterations, the one before %d: the content of channel train has changed",
                progress.epoch,
                iterations,
                progress.iterations,
            )
        progress.iterations = max(1, iterations)


class _Throughput:
    """Samples per second, measured every `interval` iterations."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._start = time.time()
        self._samples = 0
        self._speed = 0.0

    def add(self, samples: int, iteration: int) -> None:
        """Count the samples of an iteration; `iteration` is the number of iterations of the epoch so far."""
        self._samples += samples
        if iteration % self._interval == 0:
            now = time.time()
            self._speed, self._start, self._samples = self._samples / (now - self._start), now, 0

    def take(self) -> float:
        """Return the last measurement once; 0 if there is no new one."""
        speed, self._speed = self._speed, 0.0
        return speed
