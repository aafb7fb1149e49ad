"""The training of a job: epochs of steps and scores, the best weights kept, the lines that tell of it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from container import artifacts, metrics
from container.data.loader import Loader
from container.environment import Environment
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.checkpoint import Checkpoints
from container.mx.trainer import Trainer
from container.training.schedule import EarlyStopping, learning_rate

LOG = logging.getLogger(__name__)


class Fit:
    """One job's training. `stop` may be set at any time: the step under way is the last."""

    def __init__(
        self, trainer: Trainer, hyperparameters: Hyperparameters, environment: Environment, stop: threading.Event
    ) -> None:
        self._trainer = trainer
        self._job = hyperparameters
        self._host = environment.current_host
        self._best_path = environment.model_dir / artifacts.BEST_WEIGHTS
        self._last_path = environment.model_dir / artifacts.LAST_WEIGHTS
        self._checkpoints = Checkpoints(environment.checkpoint_dir, hyperparameters)
        self._stop = stop
        self._iterations = max(1, hyperparameters.num_training_samples // hyperparameters.mini_batch_size)
        self.history: list[dict[str, Any]] = []

    def run(self, train: Loader, validation: Loader) -> None:
        """Train until the last epoch, an early stop or `stop`; best and last weights are on disk then."""
        LOG.info("LRScheduler setup: iters per epoch: %d, num_epochs %d", self._iterations, self._job.epochs)
        early = EarlyStopping(self._job)
        self.history = self._checkpoints.resume(self._trainer, self._best_path)
        for entry in self.history:
            early.update(entry["epoch"], entry["mIOU"])
        for epoch in range(len(self.history), self._job.epochs):
            loss = self._train(epoch, train)
            score = self._validate(epoch, validation)
            if loss is None or score is None:
                LOG.warning("stopping on request, in epoch %d", epoch)
                break
            improved = score.miou > max((entry["mIOU"] for entry in self.history), default=-math.inf)
            self.history.append(
                {"epoch": epoch, "train_loss": loss, "mIOU": score.miou, "pixel_accuracy": score.pixel_accuracy}
            )
            if improved:
                self._save(self._best_path)
            self._checkpoints.save(self._trainer, self.history, self._best_path)
            LOG.info(metrics.progress_line(self._host, epoch + 1, self._job.epochs))
            if early.update(epoch, score.miou):
                LOG.info("early stopping after epoch %d: the validation mIOU no longer improves", epoch)
                break
        if not self.history:
            self._save(self._best_path)
        self._save(self._last_path)

    def _train(self, epoch: int, train: Loader) -> float | None:
        """Train one epoch and return its mean loss; None when it was stopped."""
        start = time.time()
        samples, losses = 0, []
        for size, loss in self._steps(epoch, train):
            samples += size
            losses.append(loss)
        if self._stop.is_set():
            return None
        if not losses:
            raise ClientError("every training sample was skipped as unusable: see the warnings above")
        self._expect(len(losses), samples)
        mean = sum(losses) / len(losses)
        end = time.time()
        throughput = samples / (end - start)
        LOG.info(metrics.quality_line(self._host, epoch, "train loss", mean))
        LOG.info(metrics.throughput_line(self._host, epoch, "train", throughput))
        self._tell("training", epoch, start, end, {"train_loss": mean, "train_throughput": throughput})
        return mean

    def _steps(self, epoch: int, train: Loader) -> Iterator[tuple[int, float]]:
        """Make the steps of an epoch; yields batch size and loss of each."""
        since, seen, pending = time.time(), 0, None
        bar = tqdm(train.training_epoch(epoch), f"epoch {epoch}", self._iterations, leave=False, disable=None)
        for iteration, batch in enumerate(bar):
            losses = self._trainer.step(batch, self._rate(epoch, iteration))
            if pending:  # wait for the step before: the device always has one to work on, and never a long queue
                yield pending[0], self._finite(epoch, pending[1])
            pending = len(batch), losses
            seen += len(batch)
            if (iteration + 1) % self._job.logging_frequency == 0:
                now = time.time()
                rate = self._rate(epoch, iteration + 1)
                LOG.info(metrics.notice_line(epoch, iteration + 1, seen / (now - since), rate))
                since, seen = now, 0
            if self._stop.is_set():
                break
        bar.iterable.close()
        if pending:
            yield pending[0], self._finite(epoch, pending[1])

    def _rate(self, epoch: int, iteration: int) -> float:
        """Learning rate of an iteration; a pass longer than announced stays at its epoch's end."""
        return learning_rate(self._job, epoch + min(1.0, iteration / self._iterations))

    def _finite(self, epoch: int, losses: list[Any]) -> float:
        """Read a step's loss; raises ClientError when training has diverged."""
        loss = float(sum(part.asscalar() for part in losses))
        if not math.isfinite(loss):
            raise ClientError(
                f"training diverged in epoch {epoch} (the loss is {loss}): lower learning_rate, "
                f"which is {self._job.learning_rate}"
            )
        return loss

    def _expect(self, iterations: int, samples: int) -> None:
        """Plan the following epochs by what this one had; say so once when num_training_samples was wrong."""
        if iterations != self._iterations and not self.history:
            LOG.warning(
                "num_training_samples is %d, but the first epoch trained on %d samples: "
                "the learning rate now follows what was seen",
                self._job.num_training_samples,
                samples,
            )
        self._iterations = max(1, iterations)

    def _validate(self, epoch: int, validation: Loader) -> ConfusionMatrix | None:
        """Score the network as the built-in does after each epoch; None when stopped: part of a set is no score."""
        start = time.time()
        score, images = self._trainer.evaluate(validation.validation_epoch(), self._job.num_classes)
        if self._stop.is_set():
            return None
        end = time.time()
        throughput = images / (end - start)
        LOG.info(metrics.quality_line(self._host, epoch, "validation pixel_accuracy", score.pixel_accuracy))
        LOG.info(metrics.quality_line(self._host, epoch, "validation mIOU", score.miou))
        LOG.info(metrics.throughput_line(self._host, epoch, "validation", throughput))
        figures = {
            "validation_pixel_accuracy": score.pixel_accuracy,
            "validation_mIOU": score.miou,
            "validation_throughput": throughput,
        }
        self._tell("validation", epoch, start, end, figures)
        return score

    def _tell(self, operation: str, epoch: int, start: float, end: float, figures: dict[str, float]) -> None:
        tqdm.write(metrics.metrics_json(self._host, operation, epoch, start, end, figures))

    def _save(self, path: Any) -> None:
        LOG.info("Serializing model to %s", path)
        self._trainer.save_weights(path)
