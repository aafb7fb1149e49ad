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
from container.training.scoring.evaluation import Deadline, EvaluationResult, evaluate
from container.training.scoring.evaluators import open_evaluator, open_subprocess_evaluator
from container.training.scoring.quantization import (
    comparison_seconds,
    is_accurate,
    is_approved,
    quantize,
    reason_to_skip,
)

LOG = logging.getLogger(__name__)

_CHANNELS = ("validation", "test")
_MINIMUM_SECONDS = 300  # for the evaluation
_EPOCHS = 2  # whose duration the evaluation can take
_TIMING_SECONDS = 60  # for the inference of one image, from which the time for all is estimated
_STOPPED = "the job was stopped first"
_OUT_OF_TIME = "the time limit was reached first. Increase _report_minutes"


class FinalSteps:
    """The steps after training. When `stop` is set, only steps of a second or two run."""

    def __init__(
        self,
        environment: Environment,
        job: Hyperparameters,
        trainer: Trainer,
        loaders: Mapping[str, Loader],
        stop: threading.Event,
        reporter: Reporter | None = None,
    ) -> None:
        self._model_dir = environment.model_dir
        self._output_data_dir = environment.output_data_dir
        self._onnx_model = environment.model_dir / model_directory.GRAPH
        self._job = job
        self._trainer = trainer
        self._loaders = loaders
        self._stop = stop
        self._reporter = reporter
        self._channels = [channel for channel in _CHANNELS if channel in loaders]
        self._evaluations = len(self._channels) + (job.quantize is True)  # that share the remaining time
        self._end = 0.0
        self._validation_images = 0
        self._image_seconds: float | None = None  # of an OpenVINO inference, if the evaluation used OpenVINO

    def run(self, history: list[dict[str, Any]], epoch_seconds: float, job_seconds: float) -> None:
        """Create all products of the best weights. An error of one product is logged and reported, and others follow.

        `epoch_seconds` is the duration of an epoch, which determines the time for the evaluation. `job_seconds` is the
        training time of all starts of the job.
        """
        if self._reporter:
            self._reporter.wait()  # it writes the same file
        self._report = Report(self._output_data_dir, history)
        self._remove_files_of_earlier_jobs()
        try:
            self._trainer.load_weights(self._model_dir / model_directory.BEST_WEIGHTS)
        except Exception as error:
            self._report.fail("everything made from the best weights", str(error))
            raise
        if classes := self._loaders["train"].classes:
            path = self._model_dir / model_directory.CLASSES
            self._attempt("classes", lambda: model_directory.write_json(path, describe_classes(classes)))
        self._attempt("check", lambda: write_check(self._model_dir, self._trainer.probabilities))
        self._attempt("graph", lambda: export_onnx(self._trainer.network, self._onnx_model))
        minutes = self._job.report_minutes
        if minutes == 0:
            LOG.info("_report_minutes is 0: the job skips the full-resolution evaluation and the int8 model.")
            return
        seconds = max(_MINIMUM_SECONDS, _EPOCHS * epoch_seconds) if minutes is None else 60 * minutes
        self._end = time.monotonic() + seconds
        for channel in self._channels:
            self._attempt_unless_stopped(channel, functools.partial(self._evaluate, channel))
        # `auto` does not report the int8 model as failed if the ONNX model already failed
        is_possible = self._onnx_model.is_file() and not self._stop.is_set()
        if self._job.quantize is True or (self._job.quantize and is_possible):
            self._attempt_unless_stopped("int8", functools.partial(self._quantize, job_seconds))

    def _remove_files_of_earlier_jobs(self) -> None:
        """Remove files made from other weights, which local jobs that share a directory leave."""
        names = (CHECK, model_directory.CLASSES, model_directory.GRAPH, model_directory.INT8_GRAPH)
        for path in (*(self._model_dir / name for name in names), self._output_data_dir / STATISTICS):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                LOG.info("Removed %s of an earlier job", path)

    def _attempt_unless_stopped(self, product: str, create: Callable[[], None]) -> None:
        if self._stop.is_set():
            self._report.fail(product, _STOPPED)
        else:
            self._attempt(product, create)

    def _attempt(self, product: str, create: Callable[[], None]) -> None:
        try:
            create()
        except JobCancelledError:
            reason = _STOPPED if self._stop.is_set() else _OUT_OF_TIME
            self._report.fail(product, reason)
            LOG.warning("The final step %s is not complete: %s", product, reason)
        except JobError as error:
            self._report.fail(product, str(error))
            LOG.error("The final step %s failed, but the weights are complete: %s", product, error)
        except Exception as error:
            self._report.fail(product, f"{type(error).__name__}: {error}")
            LOG.exception("The final step %s failed, but the weights are complete", product)

    def _evaluate(self, channel: str) -> None:
        """Evaluate the full images of a channel."""
        gallery = ExampleImages(self._job.num_classes, self._reporter.images_root) if self._reporter else None
        watch = functools.partial(_add_example, gallery) if gallery else None
        stop, begun = Deadline(self._stop, self._next_share()), time.monotonic()
        with open_evaluator(self._trainer.network, self._model_dir, stop) as evaluator:
            start = time.monotonic()
            result = evaluate(self._loaders[channel], evaluator, self._job.num_classes, stop, watch)
            engine = evaluator.name
        self._explain_cancellation(result)
        if self._loaders[channel].shard.sharded and not result.reason:
            result.reason = "the channel is ShardedByS3Key, and these images are the shard of the first host"
        if channel == "validation":
            self._validation_images = result.total or self._loaders[channel].count or len(result.evaluated)
            if engine == "openvino" and result.evaluated:
                self._image_seconds = (time.monotonic() - start) / len(result.evaluated)
        self._report.add(channel, {"engine": engine, **result.describe()})
        if gallery:
            self._show(channel, result, gallery, time.monotonic() - begun)
        self._log(channel, result)

    def _log(self, channel: str, result: EvaluationResult) -> None:
        """Log the metrics of a channel, and write statistics.json, in which `test` replaces `validation`."""
        confusion, count = result.confusions[0], len(result.evaluated)
        if count:
            line = "full-resolution %s mIOU: %.4f, pixel_accuracy: %.4f"
            LOG.info(line, channel, confusion.miou, confusion.pixel_accuracy)
            LOG.info("full-resolution %s IoU: %s", channel, _list_iou(confusion, self._loaders["train"].classes))
            folder = self._output_data_dir
            self._attempt("statistics", lambda: write_statistics(folder, channel, count, result.total, confusion))
        if not result.complete:
            line = "The full-resolution evaluation of channel %s covers %d of %s images, which report.json lists: %s"
            total = result.total or "an unknown number of"
            LOG.warning(line, channel, count, total, result.reason or "the other images cannot be evaluated")

    def _show(self, channel: str, result: EvaluationResult, gallery: ExampleImages, seconds: float) -> None:
        """Pass the result to the reporter; the report page shows that of the validation channel."""
        assert self._reporter is not None
        self._reporter.seconds[f"scoring {channel}"] = seconds
        if channel != "validation" or not result.evaluated:
            return
        count, note = str(len(result.evaluated)), ""
        if not result.complete:
            count += f" of {result.total or 'an unknown number of'}"
            note = f"Some images were not evaluated: {result.reason or 'report.json lists them'}."
        images = f"{count} full validation images"
        self._reporter.finish(gallery.scored(images, result.confusions[0].counts, len(result.evaluated), note))

    def _quantize(self, job_seconds: float) -> None:
        """Create the int8 model, and save it if it is accurate; `quantization` contains the rules."""
        if not self._onnx_model.is_file():
            raise ClientError(f"{self._onnx_model.name}, from which it is created, does not exist")
        images = self._validation_images
        if reason := reason_to_skip(self._job.quantize, job_seconds, images, self._time_image):
            self._report.add("int8", {"kept": False, "reason": reason})
            LOG.info("The job writes no int8 model: %s", reason)
            return
        seconds = self._next_share()  # of the comparison only; the quantization has no limit
        if self._job.quantize == "auto":
            seconds = max(seconds, comparison_seconds(job_seconds))
        with tempfile.TemporaryDirectory() as scratch:
            int8_model = quantize(self._onnx_model, self._loaders["train"], Path(scratch), self._stop)
            result = self._compare(int8_model, Deadline(self._stop, seconds))
            if not result.evaluated:
                reason = result.reason or "all are too large"
                raise ClientError(f"the int8 model is not saved, because no image was evaluated with it ({reason})")
            saved = is_accurate(result, self._job.quantize_tolerance)
            if saved:
                model_directory.copy_file(int8_model, self._model_dir / model_directory.INT8_GRAPH)
        miou = {name: each.miou for name, each in zip(("float32", "int8"), result.confusions, strict=True)}
        content = {**result.coverage(), "mIOU": miou, "agreement": result.agreeing / max(1, result.pixels)}
        self._report.add("int8", {**content, "kept": saved})
        if saved and is_approved(result):
            approve_int8(self._model_dir, {key: content[key] for key in ("images", "mIOU", "agreement")})
        LOG.info(
            "full-resolution validation mIOU: float32 %.4f, int8 %.4f on %d images. %s is %s (_quantize_tolerance %s)",
            miou["float32"],
            miou["int8"],
            len(result.evaluated),
            model_directory.INT8_GRAPH,
            "saved" if saved else "not saved",
            self._job.quantize_tolerance,
        )

    def _time_image(self) -> float:
        """Return the seconds of one float32 inference on the CPUs of this host."""
        if self._image_seconds is not None:
            return self._image_seconds
        stop = Deadline(self._stop, _TIMING_SECONDS)
        with open_subprocess_evaluator("openvino", [self._onnx_model], stop) as evaluator:
            for image in self._loaders["validation"].full_images(evaluator.check_size, evaluator.prefetch, stop):
                if isinstance(image, LabeledImage):
                    start = time.monotonic()
                    evaluator.predict([image.image])
                    return time.monotonic() - start
        return math.inf

    def _compare(self, int8_model: Path, stop: Deadline) -> EvaluationResult:
        """Evaluate both models on the same validation images."""
        with open_subprocess_evaluator("openvino", [self._onnx_model, int8_model], stop) as evaluator:
            result = evaluate(self._loaders["validation"], evaluator, self._job.num_classes, stop)
        self._explain_cancellation(result)
        return result

    def _next_share(self) -> float:
        """Return the seconds for the next evaluation: an equal share of the remaining time."""
        left, evaluations = max(0.0, self._end - time.monotonic()), max(1, self._evaluations)
        self._evaluations -= 1
        return left / evaluations

    def _explain_cancellation(self, result: EvaluationResult) -> None:
        """Set the reason of a cancelled evaluation; raises JobCancelledError if the job was stopped."""
        if not result.cancelled:
            return
        if self._stop.is_set():
            raise JobCancelledError
        result.reason = "the time limit was reached, so these images are a sample. Increase _report_minutes"


def _list_iou(confusion: ConfusionMatrix, classes: Mapping[int, ClassEntry]) -> str:
    """List the IoU of every class that occurs, lowest first."""
    rows = [row for row in worst_first(class_metrics(confusion.counts)) if row.iou is not None]
    return ", ".join(f"{called(classes, row.label)} {row.iou:.3f}" for row in rows)


def _add_example(gallery: ExampleImages, image: LabeledImage, mask: Uint8Array) -> None:
    gallery.add(image.name, image.image, image.labels, mask)
