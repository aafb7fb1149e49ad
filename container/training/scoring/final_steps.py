"""Final steps of a job: ONNX model, full-resolution evaluation, int8 model."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from container.arrays import Uint8Array
from container.artifact import model_directory
from container.artifact.check import CHECK, approve_int8, write_check
from container.artifact.classes import ClassEntry, called, describe_classes
from container.data.full_images import LabeledImage
from container.data.loader import Loader
from container.environment import Environment
from container.errors import ClientError, JobCancelledError, JobError
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.export import export_onnx
from container.mx.trainer import Trainer
from container.training.report.class_metrics import class_metrics, worst_first
from container.training.report.example_images import ExampleImages
from container.training.report.report import Report
from container.training.report.reporter import Reporter
from container.training.report.statistics import STATISTICS, write_statistics
from container.training.scoring.deadline import Deadline
from container.training.scoring.evaluation import EvaluationResult, score
from container.training.scoring.evaluators import open_evaluator, open_subprocess_evaluators
from container.training.scoring.int8_decision import allowed_seconds, reason_against
from container.training.scoring.quantization import quantize

LOG = logging.getLogger(__name__)

_CHANNELS = ("validation", "test")
_LEAST_SECONDS = 300  # for the scores
_EPOCHS = 2  # whose time the scores may take
_ENOUGH = 50  # validation images, where there is no time for all, on which an int8 graph is approved
_TIMING_SECONDS = 60  # for the one image that says how long the others take
_STOPPED = "the job was stopped first"
_TIME_UP = "the time was up first; _report_minutes gives it more"


class FinalSteps:
    """The last part of a job. Once `stop` is set, only what takes a second or two is done."""

    def __init__(
        self,
        environment: Environment,
        job: Hyperparameters,
        trainer: Trainer,
        loaders: Mapping[str, Loader],
        stop: threading.Event,
        reporter: Reporter | None = None,
    ) -> None:
        self._environment = environment
        self._graph = environment.model_dir / model_directory.GRAPH
        self._job = job
        self._trainer = trainer
        self._loaders = loaders
        self._stop = stop
        self._reporter = reporter
        self._channels = [channel for channel in _CHANNELS if channel in loaders]
        self._parts = len(self._channels) + (job.quantize is True)  # that share the time for scores
        self._ends = 0.0
        self._validation_images = 0
        self._image_seconds: float | None = None  # that OpenVINO takes, if it has scored

    def run(self, history: list[dict[str, Any]], epoch_seconds: float, job_seconds: float) -> None:
        """Make everything from the best weights; each product fails alone, with its reason in the log and the report.

        `epoch_seconds` is the time of an epoch of this job, which decides how long the scores may take, and
        `job_seconds` that of all epochs, in all of its starts.
        """
        if self._reporter:
            self._reporter.wait()  # it has written the same file
        self._report = Report(self._environment.output_data_dir, history)
        self._remove_earlier()
        try:
            self._trainer.load_weights(self._environment.model_dir / model_directory.BEST_WEIGHTS)
        except Exception as error:
            self._report.fail("everything made from the best weights", str(error))
            raise
        if classes := self._loaders["train"].classes:
            self._attempt(
                "classes",
                functools.partial(
                    model_directory.write_json,
                    self._environment.model_dir / model_directory.CLASSES,
                    describe_classes(classes),
                ),
            )
        self._attempt("check", lambda: write_check(self._environment.model_dir, self._trainer.probabilities))
        self._attempt("graph", lambda: export_onnx(self._trainer.network, self._graph))
        minutes = self._job.report_minutes
        if minutes == 0:
            LOG.info("_report_minutes is 0: nothing is scored at full size, and there is no int8 graph")
            return
        self._ends = time.monotonic() + (
            max(_LEAST_SECONDS, _EPOCHS * epoch_seconds) if minutes is None else 60 * minutes
        )
        for channel in self._channels:
            self._attempt_unless_stopped(channel, functools.partial(self._score, channel))
        wanted = self._graph.is_file() and not self._stop.is_set()  # by who left it to us: no second complaint
        if self._job.quantize is True or (self._job.quantize and wanted):
            self._attempt_unless_stopped("int8", functools.partial(self._quantize, job_seconds))

    def _remove_earlier(self) -> None:
        """Remove what an earlier job made of other weights, where local jobs share a directory."""
        names = (CHECK, model_directory.CLASSES, model_directory.GRAPH, model_directory.INT8_GRAPH)
        made = [self._environment.model_dir / name for name in names]
        for path in (*made, self._environment.output_data_dir / STATISTICS):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                LOG.info("%s was an earlier job's and is removed", path)

    def _attempt_unless_stopped(self, product: str, make: Callable[[], None]) -> None:
        if self._stop.is_set():
            self._report.fail(product, _STOPPED)
        else:
            self._attempt(product, make)

    def _attempt(self, product: str, make: Callable[[], None]) -> None:
        try:
            make()
        except JobCancelledError:
            reason = _STOPPED if self._stop.is_set() else _TIME_UP
            self._report.fail(product, reason)
            LOG.warning("%s could not be made: %s", product, reason)
        except JobError as error:
            self._report.fail(product, str(error))
            LOG.error("%s could not be made, the weights are complete: %s", product, error)
        except Exception as error:
            self._report.fail(product, f"{type(error).__name__}: {error}")
            LOG.exception("%s could not be made, the weights are complete", product)

    def _score(self, channel: str) -> None:
        """Score every pixel of the channel's images at their own size."""
        gallery = ExampleImages(self._job.num_classes, self._reporter.images_root) if self._reporter else None
        watch = functools.partial(_watch, gallery) if gallery else None
        until, begun = Deadline(self._stop, self._share()), time.monotonic()
        with open_evaluator(self._trainer.network, self._environment.model_dir, until) as scorer:
            start = time.monotonic()
            found = score(self._loaders[channel], scorer, self._job.num_classes, until, watch)
            name = scorer.name
        self._settle(found)
        if self._loaders[channel].shard.sharded and not found.reason:
            found.reason = "the channel is ShardedByS3Key, and these images are the first host's share"
        if channel == "validation":
            self._validation_images = found.total or self._loaders[channel].count or len(found.scored)
            if name == "openvino" and found.scored:
                self._image_seconds = (time.monotonic() - start) / len(found.scored)
        self._report.add(channel, {"engine": name, **found.figures()})
        confusion = found.confusions[0]
        if gallery:
            self._show(channel, found, gallery, time.monotonic() - begun)
        if found.scored:
            line = "full-size %s mIOU: %.4f, pixel_accuracy: %.4f"
            LOG.info(line, channel, confusion.miou, confusion.pixel_accuracy)
            LOG.info("full-size %s IoU: %s", channel, _list_scores(confusion, self._loaders["train"].classes))
            folder, images = self._environment.output_data_dir, len(found.scored)  # of both channels, test's stays
            self._attempt("statistics", lambda: write_statistics(folder, channel, images, found.total, confusion))
        if not found.complete:
            line = "that %s score is of %d images of %s%s; report.json names them"
            reason = f": {found.reason}" if found.reason else ", the others could not be scored"
            LOG.warning(line, channel, len(found.scored), found.total or "an unknown number", reason)

    def _show(self, channel: str, found: EvaluationResult, gallery: ExampleImages, seconds: float) -> None:
        """Hand a channel's score over to the report, whose page shows that of the validation images."""
        assert self._reporter is not None
        self._reporter.seconds[f"scoring {channel}"] = seconds
        if channel != "validation" or not found.scored:
            return
        count, note = str(len(found.scored)), ""
        if not found.complete:
            count += f" of {found.total or 'an unknown number of'}"
            note = f"Not every image was scored: {found.reason or 'report.json names those that could not be'}."
        of = f"{count} whole validation images"
        self._reporter.finish(gallery.scored(of, found.confusions[0].counts, len(found.scored), note))

    def _quantize(self, job_seconds: float) -> None:
        """Make the int8 graph; it stays when its mIOU is within the tolerance of float32's."""
        if not self._graph.is_file():
            raise ClientError(f"it is made from {self._graph.name}, which could not be made")
        images = self._validation_images
        if reason := reason_against(self._job.quantize, job_seconds, images, self._time_image):
            self._report.add("int8", {"kept": False, "reason": reason})
            LOG.info("no int8 graph: %s", reason)
            return
        seconds = self._share()  # for the comparison: making the graph has its own time
        if self._job.quantize == "auto":
            seconds = max(seconds, allowed_seconds(job_seconds))
        with tempfile.TemporaryDirectory() as scratch:
            int8_graph = quantize(self._graph, self._loaders["train"], Path(scratch), self._stop)
            found = self._compare(int8_graph, Deadline(self._stop, seconds))
            if not found.scored:
                raise ClientError(f"no image was scored with it ({found.reason or 'none fits'}), so it is not kept")
            scores = {name: each.miou for name, each in zip(("float32", "int8"), found.confusions, strict=True)}
            kept = scores["float32"] - scores["int8"] <= self._job.quantize_tolerance
            if kept:
                model_directory.copy_file(int8_graph, self._environment.model_dir / model_directory.INT8_GRAPH)
        figures = {**found.coverage(), "mIOU": scores, "agreement": found.agreeing / max(1, found.pixels)}
        self._report.add("int8", {**figures, "kept": kept})
        if kept and (found.complete or len(found.scored) >= _ENOUGH):
            approve_int8(self._environment.model_dir, {key: figures[key] for key in ("images", "mIOU", "agreement")})
        LOG.info(
            "full-size validation mIOU: float32 %.4f, int8 %.4f on %d images; %s is %s (_quantize_tolerance %s)",
            scores["float32"],
            scores["int8"],
            len(found.scored),
            model_directory.INT8_GRAPH,
            "kept" if kept else "not kept",
            self._job.quantize_tolerance,
        )

    def _time_image(self) -> float:
        """Return the seconds of one float32 answer on this machine's CPUs."""
        if self._image_seconds is not None:
            return self._image_seconds
        until = Deadline(self._stop, _TIMING_SECONDS)
        with open_subprocess_evaluators("openvino", [self._graph], until) as scorer:
            for picture in self._loaders["validation"].pictures(scorer.admit, scorer.ahead, until):
                if isinstance(picture, LabeledImage):
                    start = time.monotonic()
                    scorer.answers([picture.image])
                    return time.monotonic() - start
        return math.inf

    def _compare(self, int8_graph: Path, until: Deadline) -> EvaluationResult:
        """Score both graphs on the same validation images."""
        graphs = [self._graph, int8_graph]
        with open_subprocess_evaluators("openvino", graphs, until) as scorer:
            found = score(self._loaders["validation"], scorer, self._job.num_classes, until)
        self._settle(found)
        return found

    def _share(self) -> float:
        """Give the next part of the scores its share of the seconds that are left."""
        left, parts = max(0.0, self._ends - time.monotonic()), max(1, self._parts)
        self._parts -= 1
        return left / parts

    def _settle(self, found: EvaluationResult) -> None:
        """Say why a score was given up; raises Cancelled when the job was stopped: part of a set is no score then."""
        if not found.cancelled:
            return
        if self._stop.is_set():
            raise JobCancelledError
        found.reason = "the time was up, so these images are a sample; _report_minutes gives it more"


def _list_scores(confusion: ConfusionMatrix, classes: Mapping[int, ClassEntry]) -> str:
    """List every class that occurs with its IoU, the worst first."""
    rows = [row for row in worst_first(class_metrics(confusion.counts)) if row.iou is not None]
    return ", ".join(f"{called(classes, row.label)} {row.iou:.3f}" for row in rows)


def _watch(gallery: ExampleImages, picture: LabeledImage, mask: Uint8Array) -> None:
    gallery.add(picture.name, picture.image, picture.labels, mask)
