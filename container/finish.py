"""What a job leaves besides its weights: the figures to quote, the graph that opens elsewhere, its int8 form."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from container import artifacts
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


def finish(
    environment: Environment,
    job: Hyperparameters,
    trainer: Trainer,
    loaders: Mapping[str, Loader],
    history: list[dict[str, Any]],
    stop: threading.Event,
) -> None:
    """Write everything that is made of the best weights; once `stop` is set, only what takes no time.

    A step that fails costs its own product, never the job: the weights are on disk, and the platform
    keeps nothing of a job that failed.
    """
    trainer.load_weights(environment.model_dir / artifacts.BEST_WEIGHTS)
    report: dict[str, Any] = {"epochs": history}
    if classes := loaders["train"].classes:
        artifacts.write_json(environment.model_dir / artifacts.CLASSES, classes)
    graph = environment.model_dir / artifacts.GRAPH
    steps: dict[str, Any] = {
        "the ONNX graph": lambda: export_onnx(trainer.network, graph),
        "the validation report": lambda: _score(trainer, loaders, "validation", job, report),
    }
    if "test" in loaders:
        steps["the test report"] = lambda: _score(trainer, loaders, "test", job, report)
    if job.quantize:
        steps["the int8 graph"] = lambda: _quantize(environment, job, loaders, report)
    for name, step in steps.items():
        if stop.is_set() and name != "the ONNX graph":
            continue
        try:
            step()
        except OSError:
            raise  # a full disk must not pass for a complete model
        except Exception:
            LOG.exception("%s could not be made; the weights are complete", name)
    artifacts.write_json(environment.output_data_dir / REPORT, report)


def _score(
    trainer: Trainer, loaders: Mapping[str, Loader], channel: str, job: Hyperparameters, report: dict[str, Any]
) -> None:
    """Score every pixel of every image at its own size."""
    confusion, images = trainer.evaluate(loaders[channel].full_size_epoch(), job.num_classes)
    report[channel] = _figures(confusion, images)
    LOG.info("full-size %s mIOU: %.4f, pixel_accuracy: %.4f", channel, confusion.miou, confusion.pixel_accuracy)


def _figures(confusion: ConfusionMatrix, images: int) -> dict[str, Any]:
    """Render a score; the IoU of a class that is neither in truth nor in prediction is None."""
    return {
        "images": images,
        "mIOU": confusion.miou,
        "pixel_accuracy": confusion.pixel_accuracy,
        "iou": [None if np.isnan(score) else float(score) for score in confusion.iou()],
        "confusion": confusion.counts.tolist(),
    }


def _quantize(
    environment: Environment, job: Hyperparameters, loaders: Mapping[str, Loader], report: dict[str, Any]
) -> None:
    """Write the int8 graph, and keep it when its mIOU is within the tolerance of float32's, both from OpenVINO."""
    graph, int8_graph = (environment.model_dir / name for name in (artifacts.GRAPH, artifacts.INT8_GRAPH))
    training = loaders["train"].full_size_epoch()
    try:
        images = [batch.images[0] for batch in itertools.islice(training, _CALIBRATION_IMAGES)]
    finally:
        training.close()
    quantize_onnx(graph, int8_graph, images)
    engines = {
        "float32": OpenVinoEngine(graph, "float32", threads=cpu_count()),
        "int8": OpenVinoEngine(int8_graph, "int8", threads=cpu_count()),
    }
    confusions = {name: ConfusionMatrix(job.num_classes) for name in engines}
    pixels = agreeing = 0
    for batch in loaders["validation"].full_size_epoch():
        masks = {name: engine.mask(batch.images[0]) for name, engine in engines.items()}
        for name, mask in masks.items():
            confusions[name].update(batch.labels[0], mask)
        agreeing += int((masks["float32"] == masks["int8"]).sum())
        pixels += masks["int8"].size
    scores = {name: confusion.miou for name, confusion in confusions.items()}
    kept = scores["float32"] - scores["int8"] <= job.quantize_tolerance
    if not kept:
        int8_graph.unlink()
    report["int8"] = {"mIOU": scores, "agreement": agreeing / max(1, pixels), "kept": kept}
    LOG.info(
        "full-size validation mIOU: float32 %.4f, int8 %.4f; %s is %s (_quantize_tolerance %s)",
        scores["float32"],
        scores["int8"],
        artifacts.INT8_GRAPH,
        "kept" if kept else "not kept",
        job.quantize_tolerance,
    )
