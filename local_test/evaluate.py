"""Evaluate model artifacts on annotated images with OpenVINO, and write the report of a job."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from container.artifact import model_directory
from container.artifact.archives import WEIGHTS_LIMIT
from container.artifact.check import CHECK
from container.artifact.classes import ClassEntry, read_classes
from container.artifact.json_files import read_object
from container.artifact.unpacking import unpack
from container.data.audit.audit import REPORT, Audit
from container.data.labels.class_names import known_classes
from container.data.labels.color_maps import FILES
from container.data.labels.label_maps import LabelMap
from container.data.pairing import find_pairs
from container.data.sample_decoding import decode_sample
from container.data.samples import FileSamples
from container.engines.loading import load_engine
from container.engines.openvino import PRECISIONS
from container.engines.protocol import Engine
from container.environment import Channel, cpu_count
from container.errors import ClientError, JobError, printable
from container.hyperparameters import Hyperparameters, load
from container.image_range import Range
from container.metrics import ConfusionMatrix
from container.training.report.content import Baseline, Content
from container.training.report.example_images import ExampleImages
from container.training.report.job_config import versions
from container.training.report.page import PAGE, render_page

LOG = logging.getLogger(__name__)

_LIMITS = {  # maximum size of the files that an evaluation needs, in bytes
    model_directory.HYPERPARAMETERS: model_directory.HYPERPARAMETERS_LIMIT,
    model_directory.BEST_WEIGHTS: WEIGHTS_LIMIT,
    model_directory.GRAPH: WEIGHTS_LIMIT,
    model_directory.INT8_GRAPH: WEIGHTS_LIMIT,
    model_directory.CLASSES: 2**20,
    CHECK: 2**20,
}


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded model."""

    name: str
    engine: Engine
    classes: dict[int, ClassEntry]
    settings: dict[str, Any]
    image_range: Range | None
    job: Hyperparameters  # of the training job


@dataclasses.dataclass(frozen=True)
class _EngineSettings:
    """Settings of the engine."""

    precision: str
    threads: int
    engine: str = "openvino"
    max_concurrent_inferences: int = 1


def main() -> None:
    """Evaluate one model, or compare two."""
    parser = argparse.ArgumentParser(prog="local_test/evaluate.sh", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="model.tar.gz, or a directory with its content")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a directory of .jpg and .png files")
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS", help="a directory of .png files")
    parser.add_argument("label_map", type=Path, nargs="?", metavar="LABEL_MAP", help="label map")
    parser.add_argument("--against", type=Path, metavar="OTHER", help="another model, to compare with")
    parser.add_argument(
        "--output", type=Path, default=Path("evaluation"), metavar="DIR", help="directory for the report"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="(%(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="evaluate: %(message)s")
    try:
        for path in evaluate(arguments):
            print(path)
    except JobError as error:
        sys.exit(f"evaluate: {error}")
    except OSError as error:
        sys.exit(f"evaluate: {error.filename or ''}: {error.strerror or error}")


def evaluate(arguments: argparse.Namespace) -> Sequence[Path]:
    """Evaluate, and return the files of the report; raises ClientError if no image can be evaluated."""
    with contextlib.ExitStack() as stack:
        sources = [arguments.model] + ([arguments.against] if arguments.against else [])
        models = [stack.enter_context(_opened(source, arguments.precision)) for source in sources]
        counts = {model.settings["num_classes"] for model in models}
        if len(counts) > 1:
            both = " and ".join(map(str, sorted(counts)))
            raise ClientError(f"The models have {both} classes. To compare models, use models with the same classes")
        start = time.monotonic()
        samples = _open_samples(arguments, counts.pop())
        found = _Evaluation(models, samples, arguments.images, _audit(samples, models[0].job, arguments.output))
        found.run()
        content = found.content(arguments, time.monotonic() - start)
    arguments.output.mkdir(parents=True, exist_ok=True)
    page, report = arguments.output / PAGE, arguments.output / "report.json"
    model_directory.write_bytes(page, render_page(content).encode())
    model_directory.write_json(report, found.as_report())
    return page, report


class _Evaluation:
    """Evaluation of every pair with every model."""

    def __init__(self, models: Sequence[Model], samples: FileSamples, root: Path, audit: dict[str, Any]) -> None:
        self._models = models
        self._audit = audit
        self._samples = samples
        self._num_classes: int = models[0].settings["num_classes"]
        self._confusions = [ConfusionMatrix(self._num_classes) for _ in models]
        self._examples = [ExampleImages(self._num_classes, root) for _ in models]
        self._images = 0
        self._skipped: list[str] = []

    def run(self) -> None:
        """Evaluate all pairs; pairs that cannot be used are skipped and logged."""
        audited = "".join(str(fault) for fault in self._audit["warnings"])
        for sample in tqdm(self._samples.pairs, "evaluation", leave=False, disable=None):
            try:
                ranges = {model.image_range for model in self._models}  # each model uses the range of its job
                label_map, classes = self._samples.label_map, self._num_classes
                orientation = self._models[0].job.exif_orientation
                decode = functools.partial(decode_sample, sample, label_map, classes, orientation)
                pairs = {each: decode(image_range=each) for each in ranges}
            except ClientError as error:
                self._skipped.append(error.message)
                if error.message not in audited:
                    LOG.warning("skipped: %s", printable(error.message))
                continue
            for model, confusion, examples in zip(self._models, self._confusions, self._examples, strict=True):
                pair = pairs[model.image_range]
                mask = model.engine.mask(pair.image)
                confusion.update(pair.labels, mask)
                examples.add(sample.name, pair.image, pair.labels, mask)
            self._images += 1
        if not self._images:
            raise ClientError("No pair could be evaluated. The skipped pairs are", self._skipped)

    def content(self, arguments: argparse.Namespace, seconds: float) -> Content:
        """Return the content of the report page."""
        model, baseline = self._models[0], None
        note = f"Pairs that could not be used and are not counted: {len(self._skipped)}." if self._skipped else ""
        of = f"{self._images} full images"
        if len(self._models) > 1:
            mine, other = (examples.scores for examples in self._examples)
            images = {name: (score, other[name]) for name, score in mine.items()}
            baseline = Baseline(self._models[1].name, self._confusions[1].counts, images)
        tables = {
            "Inputs": {
                "model": model.name,
                **({"against": baseline.name} if baseline else {}),
                "images": str(arguments.images),
                "annotations": str(arguments.annotations),
                "label map": json.dumps(self._samples.label_map.content),
            },
            "Configuration": {**{key: str(value) for key, value in model.settings.items()}, "engine": "OpenVINO"},
            "Seconds": {"evaluation": f"{seconds:.1f}"},
            "Versions": versions(),
        }
        return Content(
            title=f"Evaluation of {model.name}",
            num_classes=self._num_classes,
            classes={**known_classes(self._samples, self._num_classes), **model.classes},
            scored=self._examples[0].scored(of, self._confusions[0].counts, self._images, note),
            baseline=baseline,
            audit=self._audit,
            details=tables,
            settings=model.job.as_dict(),
        )

    def as_report(self) -> dict[str, Any]:
        """Return the metrics of each model."""
        models = []
        for model, confusion, examples in zip(self._models, self._confusions, self._examples, strict=True):
            entry = {
                "model": model.name,
                "mIOU": confusion.miou,
                "pixel_accuracy": confusion.pixel_accuracy,
                "iou": [None if np.isnan(value) else float(value) for value in confusion.iou()],
                "confusion": confusion.counts.tolist(),
                "image_mIOU": examples.scores,
            }
            models.append(entry)
        return {"images": self._images, "skipped": self._skipped, "models": models}


@contextlib.contextmanager
def _opened(source: Path, precision: str) -> Iterator[Model]:
    """Load model artifacts; without an ONNX model, it is exported in a child process."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = source
        if not source.is_dir():
            directory = Path(scratch) / "model"
            directory.mkdir()
            content = unpack(source, directory, _LIMITS, 8 * WEIGHTS_LIMIT)
            if content is None:
                raise ClientError(f"{source} is not an archive. Use the model.tar.gz of a training job")
            if faults := content.faults:
                raise ClientError(f"{source} contains files that a training job does not write", faults)
        settings = model_directory.read_model_settings(directory, str(source))
        try:
            engine = load_engine(directory, _EngineSettings(precision, cpu_count()))
        except ClientError as error:  # its message contains the temporary directory
            raise ClientError(error.message.replace(str(directory), str(source)), error.details) from error
        if engine.num_classes != settings["num_classes"]:
            raise ClientError(
                f"{source}: {model_directory.HYPERPARAMETERS} has {settings['num_classes']} classes, but the ONNX "
                f"model has {engine.num_classes}, so they belong to different jobs. Use the model.tar.gz of one job"
            )
        image_range = model_directory.read_image_range(directory, str(source))
        yield Model(str(source), engine, read_classes(directory), settings, image_range, _read_job(directory, settings))


def _read_job(directory: Path, settings: Mapping[str, Any]) -> Hyperparameters:
    """Return the hyperparameters of the training job, or only the required ones if the others are not valid."""
    log = logging.getLogger("container.hyperparameters")
    level = log.level
    log.setLevel(logging.ERROR)  # warnings about options of a completed job are not useful
    try:
        return load(read_object(directory / model_directory.HYPERPARAMETERS))
    except ClientError:
        return load(settings)
    finally:
        log.setLevel(level)


def _audit(samples: FileSamples, job: Hyperparameters, output: Path) -> dict[str, Any]:
    """Audit the pairs as a job does, and return audit.json; raises ClientError if there are errors.

    Unusable pairs are only warnings if there are usable pairs, because the evaluation skips them.
    """
    output.mkdir(parents=True, exist_ok=True)
    job = dataclasses.replace(job, max_bad_records=len(samples.pairs))
    try:
        Audit(job, {samples.channel: samples}, output).run("full", threading.Event())
    except ClientError as error:
        advice = error.message.replace(FILES, "a file, and specify it as LABEL_MAP")
        raise ClientError(advice, error.details) from error
    return read_object(output / REPORT)


def _open_samples(arguments: argparse.Namespace, num_classes: int) -> FileSamples:
    for folder in (arguments.images, arguments.annotations):
        if not folder.is_dir():
            raise ClientError(f"The directory {folder} does not exist")
    label_map = LabelMap.read(arguments.label_map) if arguments.label_map else LabelMap()
    label_map.check(num_classes)
    channels = {
        "images": Channel("images", arguments.images),
        "images_annotation": Channel("images_annotation", arguments.annotations),
    }
    return FileSamples("images", find_pairs(channels, "images"), label_map)


if __name__ == "__main__":
    main()
