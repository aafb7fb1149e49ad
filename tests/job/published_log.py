"""Kinds of log lines: those of a published job of the built-in algorithm, and those of this container.

The published job is the Pascal VOC example of 2020. Expressions of lines with a prefix begin with the level.
"""

from __future__ import annotations

import json
import re

_NUMBER = r"-?\d+(\.\d+)?(e[-+]?\d+)?"
_COUNTS = [
    *("Max Batches Seen Between Resets", "Number of Batches Since Last Reset", "Number of Records Since Last Reset"),
    *("Total Batches Seen", "Total Records Seen", "Max Records Seen Between Resets", "Reset Count"),
]
_DIMENSIONS = {"Host": "algo-1", "Operation": "training", "Algorithm": "AWS/Semantic Segmentation"}

PUBLISHED = {
    "entry point": r"Docker entrypoint called with argument\(s\): train",
    "defaults": r"INFO Reading default configuration from \S+: \{.*\}",
    "given": r"INFO Merging with provided configuration from \S+/input/config/hyperparameters\.json: \{.*\}",
    "final": r"INFO Final configuration: \{.*\}",
    "no checkpoints": r"INFO Checkpoint loading and saving are disabled\.",
    "nested channel": r"WARNING \S+/input/data/train/train_annotation is not a readable image file",
    "no label map": r"WARNING label maps not provided, using defaults\.",
    "label map": r"INFO #label_map train :\{'scale': 1\}",
    "GPUs": r"INFO Number of GPUs being used: \d+",
    "schedule": r"INFO LRScheduler setup: iters per epoch: \d+, num_epochs \d+",
    "train notice": (
        rf"INFO #progress_notice\. epoch: \d+, iterations: \d+ speed: {_NUMBER} samples/sec learning_rate: \d+\.\d{{6}}"
    ),
    "train loss": rf"INFO #quality_metric\. host: algo-1, epoch: \d+, train loss: {_NUMBER} \.",
    "train throughput": (
        rf"INFO #throughput_metric\. host: algo-1, epoch: \d+, train throughput: {_NUMBER} samples/sec\."
    ),
    "validation notice": rf"INFO #progress_notice\. epoch: \d+, iterations: \d+ speed: {_NUMBER} samples/sec",
    "accuracy": rf"INFO #quality_metric\. host: algo-1, epoch: \d+, validation pixel_accuracy: {_NUMBER} \.",
    "mIOU": rf"INFO #quality_metric\. host: algo-1, epoch: \d+, validation mIOU: {_NUMBER} \.",
    "validation throughput": (
        rf"INFO #throughput_metric\. host: algo-1, epoch: \d+, validation throughput: {_NUMBER} samples/sec\."
    ),
    "best weights": r"INFO Serializing model to \S+/model/model_best\.params",
    "progress": r"INFO #progress_metric: host=algo-1, completed \d+ % of epochs",
    "last weights": r"INFO Serializing model to \S+/model/model_algo-1",
    "no test data": r"INFO Test data is not provided\.",
}

# By Meta: the dimensions and the names.
PUBLISHED_METRICS = {
    "init_train_data_iter": ({**_DIMENSIONS, "Meta": "init_train_data_iter"}, _COUNTS),
    "training_data_iter": ({**_DIMENSIONS, "Meta": "training_data_iter", "epoch": 0}, _COUNTS),
    None: (_DIMENSIONS, ["epochs", "totaltime", "setuptime"]),
}

NOT_PRINTED = {
    "entry point": "the container image starts `train` directly",
    "nested channel": "the annotations of a channel are not in the directory of its images",
}

OWN = {
    "label map of validation": r"INFO #label_map validation :\{'scale': 1\}",  # the published job has it too
    "audit": r"INFO audit \(full, \S+ s\): 0 errors, 0 warnings; .*",  # the data are checked before training
    "audit table": r"INFO   .*",
    "no GPU": r"WARNING No GPU found\. .*",
    "optimizer": r"INFO sgd steps as in GluonCV and the built-in algorithm: .*",
    "class": rf"INFO #quality_metric\. host: algo-1, epoch: \d+, validation IOU of class \d+: {_NUMBER} \.",
    "full-resolution evaluation": r"INFO full-resolution validation .*",  # after training, on complete images
    "int8": r"INFO The job writes no int8 model: .*",
}

_LINE = re.compile(r"(?:\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d (?P<level>\w+) \d+\] )?(?P<text>.*)")


def split(log: str) -> tuple[list[str], list[dict[str, object]]]:
    """Return the lines, each with its level instead of its prefix, and the contents of the `#metrics` lines."""
    found = [_LINE.fullmatch(line) for line in log.splitlines() if not line.startswith("#metrics ")]
    lines = [f"{match['level']} {match['text']}" if match["level"] else match["text"] for match in found if match]
    return lines, [json.loads(line[9:]) for line in log.splitlines() if line.startswith("#metrics ")]
