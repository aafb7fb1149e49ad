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
from container.data.batches import Batch
from container.data.hosts import Hosts
from container.data.loader import Loader
from container.errors import ClientError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.replicas import TrainingDivergedError
from container.mx.trainer import Trainer
from container.training.checkpoints.manager import LONG_STEP_SECONDS, CheckpointManager
from container.training.checkpoints.progress import Progress
from container.training.cluster_setup import add_class_counts
from container.training.divergence import DivergenceHandler
from container.training.metric_log import MetricLogger
from container.training.report.reporter import Reporter
from container.training.schedule import EarlyStopping, learning_rate, warmed_up
from container.training.scoring.validation import Validation

LOG = logging.getLogger(__name__)


class TrainingLoop:
    """One job's training from `progress` on, the same on every host; one that is to stop makes no further step."""

    def __init__(
        self,
        trainer: Trainer,
        job: Hyperparameters,
        hosts: Hosts,
        keeper: CheckpointManager,
        progress: Progress,
        reporter: Reporter | None = None,
    ) -> None:
        self._trainer = trainer
        self._job = job
        self._hosts = hosts
        self._keeper = keeper
        self._progress = progress
        self._stop = hosts.stop
        self._teller = MetricLogger(hosts)
        self._validation = Validation(trainer, job, hosts, self._teller, reporter)
        self._divergence = DivergenceHandler(trainer, job, keeper, progress)
        self._reporter = reporter
        self._seed = job.seed or 0
        self._begun = False  # whether this process has made a step
        self._counted = False  # the classes' pixels
        self._updated = progress  # as it was when no update was owed
        self._since = 0.0  # when the seconds were last counted

    def run(self, train: Loader, validation: Loader) -> bool:
        """Train until the last epoch, an early stop or `stop`; best and last weights are on disk then.

        Returns False, with nothing written, when it was stopped before anything was trained.
        """
        progress = self._progress
        self._teller.log("LRScheduler setup: iters per epoch: %d, num_epochs %d", progress.iterations, self._job.epochs)
        self._teller.begin()
        self._count_classes(train, self._job.epochs - progress.epoch)
        try:
            try:
                self._epochs(train, validation)
            except TrainingDivergedError as error:
                self._divergence.begin(error, train)
                self._epochs(train, validation)
        except TrainingDivergedError as error:
            self._divergence.end(error)
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
            self._divergence.prepare()
            whole = progress.trained or self._train(train)
            due = progress.epoch + 1 == self._job.epochs or (progress.epoch + 1) % self._job.validation_interval == 0
            if whole and due and self._hosts.decide(self._validation.is_long):
                self._keeper.secure(progress)
            score = self._validation.score(validation, progress.epoch) if whole and due else None
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
        if progress.seconds:  # of an epoch that an earlier version has trained they are not known
            figures |= {"train_throughput": progress.samples / progress.seconds, "train_seconds": progress.seconds}
        progress.close_epoch({**figures, **(self._validation.figures if score else {})})
        if self._reporter:
            self._reporter.epoch(progress.history, score.counts if score else None, self._validation.images)
        if improved:
            self._keeper.best(progress)
        self._keeper.checkpoint(progress)
        self._teller.progress(epoch + 1, self._job.epochs)
        if over := score is not None and early.update(epoch, score.miou):
            LOG.info("early stopping after epoch %d: the validation mIOU no longer improves", epoch)
        return over

    def _train(self, train: Loader) -> bool:
        """Train what is left of the epoch; returns whether it is whole, not stopped."""
        progress = self._progress
        start, self._since = time.time(), time.monotonic()
        self._steps(train)
        if self._stop.is_set():
            return False
        if not progress.iteration:
            raise ClientError("every training sample was skipped as unusable: see the warnings above")
        progress.trained = True
        self._trainer.flush(self._step_rate(progress.iteration - 1))
        self._trainer.synchronize_replicas()
        self._count_classes(train, self._job.epochs - progress.epoch - 1)
        self._expect(progress.iteration, progress.samples)
        mean = progress.loss / progress.iteration
        self._count_seconds()
        end, throughput = time.time(), progress.samples / progress.seconds
        self._teller.quality(progress.epoch, "train loss", mean)
        self._teller.throughput(progress.epoch, "train", throughput)
        told = {"train_loss": mean, "train_throughput": throughput}
        self._teller.training(progress.epoch, start, end, (progress.iteration, progress.samples), told)
        return True

    def _steps(self, train: Loader) -> None:
        """Make the epoch's steps, one always under way while the one before is accounted for."""
        progress, epoch = self._progress, self._progress.epoch
        made = progress.iteration
        since, seen, pending = time.time(), 0, None
        speed = 0.0  # samples/s that are still to be told
        wait = LONG_STEP_SECONDS  # for which the last step was waited for: the first one says whether steps are long
        self._updated = dataclasses.replace(progress)
        batches = train.training_epoch(epoch, progress.groups)
        bar = tqdm(batches, f"epoch {epoch}", progress.iterations, leave=False, disable=None, initial=made)
        with contextlib.closing(batches), bar:
            for batch in self._hosts.in_step(iter(bar), self._job.crop):
                if speed:
                    self._notice(made, speed, self._step_rate(made))
                    speed = 0.0
                losses = self._step(batch, made)
                made += 1
                if pending:  # wait for the step before: the device always has one to work on, and never a long queue
                    wait = self._account(*pending)
                pending, seen = (batch, losses), seen + batch.size
                if wait >= LONG_STEP_SECONDS:  # nor two steps that a stop has to wait for
                    wait, pending = self._account(*pending), None
                if made % self._job.logging_frequency == 0:
                    now = time.time()
                    speed, since, seen = seen / (now - since), now, 0
                if self._stop.is_set():
                    break
                if self._at_update(made) and (write := self._keeper.due(wait)):
                    if pending:
                        self._account(*pending)
                    pending = None
                    write(progress)
        if speed:  # the next iteration is the next epoch's first, unless a stop leaves some of this one
            self._notice(made, speed, self._rate(epoch + min(1.0, made / progress.iterations), made))
        if pending:
            self._account(*pending)
        if self._stop.is_set() and not self._at_update(progress.iteration):
            progress.return_to(self._updated)  # the steps since are made again; the weights are as they were
            self._trainer.drop_gathered()

    def _notice(self, made: int, speed: float, rate: float) -> None:
        """Tell how the epoch is going after so many steps; `rate` is the learning rate of the next one."""
        progress = self._progress
        self._teller.log(metrics.notice_line(progress.epoch, made, speed, rate))
        if self._reporter:
            figures = {"learning_rate": rate, "samples_per_second": speed}
            if progress.iteration:
                figures["loss"] = progress.loss / progress.iteration
            self._reporter.iteration(progress.steps + made, figures)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self._progress.seconds += now - self._since
        self._since = now

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
        return rate * self._divergence.factor

    def _count_classes(self, train: Loader, epochs: int) -> None:
        """Let the loss weigh classes as `_class_weights` says, as soon as it is known how often they occur.

        What hosts have counted is added up, for the choice of rare crops too. `epochs` are still to come.
        """
        kind = self._job.class_weights
        if self._counted or not self._job.counts_classes:
            return
        counts = add_class_counts(self._hosts, train, self._job.num_classes)
        self._counted = counts is not None
        if not isinstance(kind, str):
            return
        if counts is None:
            LOG.warning(
                "_class_weights=%s %s: it counts the classes of a stream; those of channels in File mode are counted "
                "before it, and a list of weights needs no count",
                kind,
                "begins after the first pass" if epochs > 1 else "has no effect in the only pass",
            )
        elif epochs > 0:
            weights = counts.weights(kind)
            self._trainer.weigh_classes(weights)
            LOG.info("_class_weights=%s: %s", kind, ", ".join(f"{n}: {weight:.4g}" for n, weight in enumerate(weights)))

    def _at_update(self, made: int) -> bool:
        """Whether so many steps of an epoch are a moment for a checkpoint, which holds what one host has gathered.

        With `_accumulate`, several hosts have gathered nothing only right after an update.
        """
        return self._hosts.count == 1 or made % self._job.accumulate == 0

    def _account(self, batch: Batch, losses: list[Any]) -> float:
        """Wait for a step and add it to the progress; returns for how many seconds it was waited for.

        Raises Diverged when its loss is not finite.
        """
        start = time.monotonic()
        loss = float(sum(part.asscalar() for part in losses))
        if not math.isfinite(loss):
            raise TrainingDivergedError(f"the loss is {loss}")
        progress = self._progress
        progress.iteration += 1
        progress.groups = batch.group + 1
        progress.samples += batch.size
        progress.loss += loss
        wait = time.monotonic() - start
        self._count_seconds()
        if self._at_update(progress.iteration):
            self._updated = dataclasses.replace(progress)
        return wait

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
