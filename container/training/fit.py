"""The training of a job: epochs of steps and scores, the best weights kept, the lines that tell of it."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from typing import Any

from tqdm import tqdm

from container import metrics
from container.arrays import Uint8Array
from container.data.batches import Batch
from container.data.loader import Loader
from container.data.pictures import Picture
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.trainer import Diverged, Trainer
from container.training.keeper import Keeper
from container.training.progress import Progress
from container.training.report.reporter import Reporter
from container.training.schedule import EarlyStopping, learning_rate, warmed_up
from container.training.whole import score_whole

LOG = logging.getLogger(__name__)

RETRY_FACTOR = 0.1  # of the learning rate after training has diverged


class Fit:
    """One job's training from `progress` on. `stop` may be set at any time: the step under way is the last."""

    def __init__(
        self,
        trainer: Trainer,
        job: Hyperparameters,
        host: str,
        keeper: Keeper,
        progress: Progress,
        stop: threading.Event,
        reporter: Reporter | None = None,
    ) -> None:
        self._trainer = trainer
        self._job = job
        self._host = host
        self._keeper = keeper
        self._progress = progress
        self._stop = stop
        self._reporter = reporter
        self._figures: dict[str, float] = {}  # of the epoch under way, for the report
        self._seed = job.seed or 0
        self._validated = 0  # images of the last validation
        self._begun = False  # whether this process has made a step
        self._weighed = False  # classes, by their counts
        self._return: dict[str, Any] | None = None  # the weights to go on from when there are no best ones yet

    def run(self, train: Loader, validation: Loader) -> bool:
        """Train until the last epoch, an early stop or `stop`; best and last weights are on disk then.

        Returns False, with nothing written, when it was stopped before anything was trained.
        """
        progress = self._progress
        LOG.info("LRScheduler setup: iters per epoch: %d, num_epochs %d", progress.iterations, self._job.epochs)
        self._weigh_classes(train)
        try:
            try:
                self._epochs(train, validation)
            except Diverged as error:
                self._retry(error, train)
                self._epochs(train, validation)
        except Diverged as error:
            self._end_diverged(error)
            return True
        if not (progress.history or progress.iteration):
            return False
        if progress.best is None:
            self._keeper.best(progress)
        self._keeper.last()
        return True

    def _epochs(self, train: Loader, validation: Loader) -> None:
        """Make the epochs that are left, none when an earlier start had made them all or had stopped early."""
        progress, early, over = self._progress, EarlyStopping(self._job), False
        for entry in progress.scored:
            over = early.update(entry["epoch"], entry["mIOU"])
        if over:
            LOG.info("nothing more to train: the job had stopped early after epoch %d", progress.epoch - 1)
        elif progress.epoch >= self._job.epochs:
            LOG.info("nothing more to train: all %d epochs are done; raise epochs to go on", self._job.epochs)
        while not over and progress.epoch < self._job.epochs:
            if self._job.on_divergence == "retry" and not progress.lowered:
                self._return = None if progress.best else self._trainer.copy_weights()
            whole = progress.trained or self._train(train)
            due = progress.epoch + 1 == self._job.epochs or (progress.epoch + 1) % self._job.validation_interval == 0
            score = self._validate(validation) if whole and due else None
            if not whole or (due and score is None):
                LOG.warning("stopping on request, in epoch %d", progress.epoch)
                if progress.iteration:
                    self._keeper.checkpoint(progress)
                return
            over = self._close_epoch(score, early)

    def _close_epoch(self, score: ConfusionMatrix | None, early: EarlyStopping) -> bool:
        """Keep what the epoch has brought, of which there may be no score; returns whether the job stops early."""
        progress = self._progress
        epoch, loss = progress.epoch, progress.loss / progress.iteration
        improved = score is not None and score.miou > (progress.best["mIOU"] if progress.best else -math.inf)
        figures = {"train_loss": loss}
        if score:
            figures |= {"mIOU": score.miou, "pixel_accuracy": score.pixel_accuracy}
        figures["learning_rate"] = self._rate(epoch, 0)
        progress.close_epoch({**figures, **self._figures})
        self._figures = {}
        if self._reporter:
            self._reporter.epoch(progress.history, score.counts if score else None, self._validated)
        if improved:
            self._keeper.best(progress)
        self._keeper.checkpoint(progress)
        LOG.info(metrics.progress_line(self._host, epoch + 1, self._job.epochs))
        if over := score is not None and early.update(epoch, score.miou):
            LOG.info("early stopping after epoch %d: the validation mIOU no longer improves", epoch)
        return over

    def _retry(self, error: Diverged, train: Loader) -> None:
        """Go back to the best weights, once, with a lower learning rate; raises the error where that is not wanted."""
        progress = self._progress
        if self._job.on_divergence != "retry" or progress.lowered:
            raise error
        epoch = progress.epoch
        if best := progress.best:
            source = f"the best weights, those of epoch {best['epoch']}"
            self._keeper.return_to_best()
        else:
            source = "the weights that the epoch or this start began with: none are best yet"
            assert self._return is not None
            self._trainer.set_weights(self._return)
            self._keeper.restart()
        self._return = None
        train.rewind()
        progress.begin_again()
        LOG.error(
            "training diverged in epoch %d (%s). IT GOES ON, ONCE, FROM %s, WITH THE LEARNING RATE TIMES %g (%g "
            "instead of %g) from the beginning of that epoch (_on_divergence=retry)",
            epoch,
            error,
            source.upper(),
            RETRY_FACTOR,
            self._job.learning_rate * RETRY_FACTOR,
            self._job.learning_rate,
        )

    def _end_diverged(self, error: Diverged) -> None:
        """Keep the best model of a job that diverged late; raises ClientError when there is none."""
        epoch, best = self._progress.epoch, self._progress.best
        rate = f"{self._job.learning_rate}" + (f" times {RETRY_FACTOR}" if self._progress.lowered else "")
        told = f"training diverged in epoch {epoch} ({error}): lower learning_rate, which is {rate}"
        if best is None:
            raise ClientError(told) from error
        LOG.error("%s. THE JOB ENDS HERE, with the best weights, those of epoch %d, as its model", told, best["epoch"])
        self._keeper.last_is_best()

    def _train(self, train: Loader) -> bool:
        """Train what is left of the epoch; returns whether it is whole, not stopped."""
        progress = self._progress
        start, before = time.time(), progress.samples
        self._steps(train)
        if self._stop.is_set():
            return False
        if not progress.iteration:
            raise ClientError("every training sample was skipped as unusable: see the warnings above")
        progress.trained = True
        self._trainer.flush(self._step_rate(progress.iteration - 1))
        self._trainer.unite()
        self._weigh_classes(train)
        self._expect(progress.iteration, progress.samples)
        mean = progress.loss / progress.iteration
        end = time.time()
        throughput = (progress.samples - before) / (end - start)
        LOG.info(metrics.quality_line(self._host, progress.epoch, "train loss", mean))
        LOG.info(metrics.throughput_line(self._host, progress.epoch, "train", throughput))
        self._figures |= {
            "train_throughput": throughput,
            "train_seconds": end - start,
        }
        self._tell("training", start, end, {"train_loss": mean, "train_throughput": throughput})
        return True

    def _steps(self, train: Loader) -> None:
        """Make the epoch's steps, one always under way while the one before is accounted for."""
        progress, epoch = self._progress, self._progress.epoch
        made = progress.iteration
        since, seen, pending = time.time(), 0, None
        batches = train.training_epoch(epoch, progress.groups)
        bar = tqdm(batches, f"epoch {epoch}", progress.iterations, leave=False, disable=None, initial=made)
        with contextlib.closing(batches), bar:
            for batch in bar:
                losses = self._step(batch, made)
                made += 1
                if pending:  # wait for the step before: the device always has one to work on, and never a long queue
                    self._account(*pending)
                pending, seen = (batch, losses), seen + len(batch)
                if made % self._job.logging_frequency == 0:
                    now = time.time()
                    position = epoch + min(1.0, made / progress.iterations)
                    rate = self._rate(position, made)
                    LOG.info(metrics.notice_line(epoch, made, seen / (now - since), rate))
                    if self._reporter:
                        step = epoch * progress.iterations + made
                        figures = {"learning_rate": rate, "samples_per_second": seen / (now - since)}
                        if progress.iteration:
                            figures["loss"] = progress.loss / progress.iteration
                        self._reporter.iteration(step, figures)
                    since, seen = now, 0
                if self._stop.is_set():
                    break
                if self._keeper.due:
                    self._account(*pending)
                    pending = None
                    self._keeper.checkpoint(progress)
        if pending:
            self._account(*pending)

    def _step(self, batch: Batch, iteration: int) -> list[Any]:
        """Make step `iteration` of the epoch; steps that were not planned have the rate of the last that was."""
        if self._trainer.seeds_every_step or iteration == 0 or not self._begun:
            self._trainer.seed(self._seed, self._progress.epoch, iteration)
        self._begun = True
        return self._trainer.step(batch, self._step_rate(iteration))

    def _step_rate(self, iteration: int) -> float:
        planned = min(iteration, self._progress.iterations - 1) / self._progress.iterations
        return self._rate(self._progress.epoch + planned, iteration)

    def _rate(self, position: float, iteration: int) -> float:
        """Return the learning rate at `position` of the schedule, in epochs, for step `iteration` of this epoch."""
        rate = learning_rate(self._job, position) * warmed_up(self._job, self._progress.steps + iteration)
        return rate * RETRY_FACTOR if self._progress.lowered else rate

    def _weigh_classes(self, train: Loader) -> None:
        """Let the loss weigh classes as `_class_weights` says, as soon as it is known how often they occur."""
        kind, counts = self._job.class_weights, train.class_counts
        if not isinstance(kind, str) or self._weighed:
            return
        if counts is None:
            LOG.warning(
                "_class_weights=%s begins after the first pass, which counts the classes: _audit=full counts them "
                "before it, in File mode",
                kind,
            )
            return
        weights = counts.weights(kind)
        self._trainer.weigh_classes(weights)
        self._weighed = True
        LOG.info("_class_weights=%s: %s", kind, ", ".join(f"{n}: {weight:.4g}" for n, weight in enumerate(weights)))

    def _account(self, batch: Batch, losses: list[Any]) -> None:
        """Wait for a step and add it to the progress; raises Diverged when its loss is not finite."""
        loss = float(sum(part.asscalar() for part in losses))
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss}")
        progress = self._progress
        progress.iteration += 1
        progress.groups = batch.group + 1
        progress.samples += len(batch)
        progress.loss += loss

    def _expect(self, iterations: int, samples: int) -> None:
        """Plan the following epochs by what this one had; say so when it was not what was expected."""
        progress = self._progress
        if iterations != progress.iterations and not progress.history:
            LOG.warning(
                "num_training_samples is %d, but the first epoch trained on %d samples: "
                "the learning rate now follows what was seen",
                self._job.num_training_samples,
                samples,
            )
        elif abs(iterations - progress.iterations) > 1:  # one more or less is what passes leave over to each other
            LOG.warning(
                "epoch %d had %d iterations, the one before %d: channel train no longer holds what it held",
                progress.epoch,
                iterations,
                progress.iterations,
            )
        progress.iterations = max(1, iterations)

    def _validate(self, validation: Loader) -> ConfusionMatrix | None:
        """Score the network as the built-in does after each epoch; None when stopped: part of a set is no score."""
        epoch, start = self._progress.epoch, time.time()
        if self._job.validation == "full":
            found = score_whole(
                self._trainer, validation, self._job, self._stop, self._watch_whole if self._reporter else None
            )
        else:
            found = self._trainer.evaluate(
                validation.validation_epoch(), self._job.num_classes, self._watch if self._reporter else None
            )
        if self._stop.is_set() or found is None:
            return None
        score, images = found
        end = time.time()
        throughput = images / (end - start)
        LOG.info(metrics.quality_line(self._host, epoch, "validation pixel_accuracy", score.pixel_accuracy))
        LOG.info(metrics.quality_line(self._host, epoch, "validation mIOU", score.miou))
        LOG.info(metrics.throughput_line(self._host, epoch, "validation", throughput))
        for label, iou in enumerate(score.iou().tolist()):
            if not math.isnan(iou):
                LOG.info(metrics.quality_line(self._host, epoch, f"validation {metrics.class_name(label)}", iou))
        figures = {
            "validation_pixel_accuracy": score.pixel_accuracy,
            "validation_mIOU": score.miou,
            "validation_throughput": throughput,
        }
        self._validated = images
        self._figures |= {"validation_throughput": throughput, "validation_seconds": end - start}
        self._tell("validation", start, end, figures)
        return score

    def _watch(self, batch: Batch, predictions: Uint8Array) -> None:
        assert self._reporter is not None
        self._reporter.watch(batch.names, batch.images, batch.labels, predictions)

    def _watch_whole(self, picture: Picture, mask: Uint8Array) -> None:
        assert self._reporter is not None
        self._reporter.watch((picture.name,), picture.image[None], picture.labels[None], mask[None])

    def _tell(self, operation: str, start: float, end: float, figures: dict[str, float]) -> None:
        tqdm.write(metrics.metrics_json(self._host, operation, self._progress.epoch, start, end, figures))
