"""What a job leaves besides its weights: the figures to quote, the graph that opens elsewhere, its int8 form."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from container import artifacts
from container.classes import describe_classes
from container.data.loader import Loader
from container.engines.openvino import OpenVinoEngine
from container.engines.quantize import quantize_onnx
from container.environment import Environment, cpu_count
from container.hyperparameters import Hyperparameters
from container.metrics import ConfusionMatrix
from container.mx.export import export_onnx
from container.mx.trainer import Trainer

LOG = logging.getLogger(__name__)

REPORT = "report.json"
_CALIBRATION_IMAGES = 16


class Finish:
    """The last part of a job. Once `stop` is set, only what takes no time is done."""

    def __init__(
        self,
        environment: Environment,
        job: Hyperparameters,
        trainer: Trainer,
        loaders: Mapping[str, Loader],
        stop: threading.Event,
    ) -> None:
        self._environment = environment
        self._graph = environment.model_dir / artifacts.GRAPH
        self._int8_graph = environment.model_dir / artifacts.INT8_GRAPH
        self._job = job
        self._trainer = trainer
        self._loaders = loaders
        self._stop = stop
        self._report: dict[str, Any] = {}

    def run(self, history: list[dict[str, Any]]) -> None:
        """Make everything from the best weights, and write the report.

        A step that fails costs its own product, never the job: the platform keeps nothing of a job that failed.
        """
        self._report["epochs"] = history
        self._trainer.load_weights(self._environment.model_dir / artifacts.BEST_WEIGHTS)
        if classes := self._loaders["train"].classes:
            artifacts.write_json(self._environment.model_dir / artifacts.CLASSES, describe_classes(classes))
        self._attempt("the ONNX graph", lambda: export_onnx(self._trainer.network, self._graph))
        for channel in ("validation", "test"):
            if channel in self._loaders and not self._stop.is_set():
                self._attempt(f"the {channel} report", functools.partial(self._score, channel))
        if self._job.quantize and not self._stop.is_set():
            self._attempt("the int8 graph", self._quantize)
        artifacts.write_json(self._environment.output_data_dir / REPORT, self._report)

    def _attempt(self, product: str, make: Callable[[], None]) -> None:
        try:
            make()
        except OSError:
            raise  # a full disk must not pass for a complete model
        except Exception:
            LOG.exception("%s could not be made; the weights are complete", product)

    def _score(self, channel: str) -> None:
        """Score every pixel of every image at its own size."""
        confusion, images = self._trainer.evaluate(self._loaders[channel].full_size_epoch(), self._job.num_classes)
        if self._stop.is_set():
            return  # part of a set is no score
        self._report[channel] = _figures(confusion, images)
        LOG.info("full-size %s mIOU: %.4f, pixel_accuracy: %.4f", channel, confusion.miou, confusion.pixel_accuracy)

    def _quantize(self) -> None:
        """Write the int8 graph; it stays when its mIOU is within the tolerance of float32's."""
        with contextlib.closing(self._loaders["train"].full_size_epoch()) as training:
            images = [batch.images[0] for batch in itertools.islice(training, _CALIBRATION_IMAGES)]
        kept = False
        try:
            quantize_onnx(self._graph, self._int8_graph, images)
            scores, agreement = self._compare()
            kept = scores["float32"] - scores["int8"] <= self._job.quantize_tolerance and not self._stop.is_set()
        finally:
            if not kept:
                self._int8_graph.unlink(missing_ok=True)
        self._report["int8"] = {"mIOU": scores, "agreement": agreement, "kept": kept}
        LOG.info(
            "full-size validation mIOU: float32 %.4f, int8 %.4f; %s is %s (_quantize_tolerance %s)",
            scores["float32"],
            scores["int8"],
            self._int8_graph.name,
            "kept" if kept else "not kept",
            self._job.quantize_tolerance,
        )

    def _compare(self) -> tuple[dict[str, float], float]:
        """Return the validation mIOU of both graphs, and the share of pixels on which they agree."""
        graphs = {"float32": self._graph, "int8": self._int8_graph}
        engines = {name: OpenVinoEngine(graph, name, threads=cpu_count()) for name, graph in graphs.items()}
        confusions = {name: ConfusionMatrix(self._job.num_classes) for name in engines}
        pixels = agreeing = 0
        for batch in self._loaders["validation"].full_size_epoch():
            masks = {name: engine.mask(batch.images[0]) for name, engine in engines.items()}
            for name, mask in masks.items():
                confusions[name].update(batch.labels[0], mask)
            agreeing += int((masks["float32"] == masks["int8"]).sum())
            pixels += masks["int8"].size
        return {name: confusion.miou for name, confusion in confusions.items()}, agreeing / max(1, pixels)


def _figures(confusion: ConfusionMatrix, images: int) -> dict[str, Any]:
    """Render a score; the IoU of a class that is neither in truth nor in prediction is None."""
    return {
        "images": images,
        "mIOU": confusion.miou,
        "pixel_accuracy": confusion.pixel_accuracy,
        "iou": [None if np.isnan(score) else float(score) for score in confusion.iou()],
        "confusion": confusion.counts.tolist(),
    }
