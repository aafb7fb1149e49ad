"""Evaluate a parameter file on the full validation images of a job directory, and print JSON."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import mxnet as mx
import numpy as np

from container import hyperparameters
from container.data.loader import Loader
from container.data.samples import open_samples
from container.environment import Environment
from container.mx.inference.evaluation import MXNetEvaluator
from container.mx.networks.segmentation import SegmentationNetwork, load_weights
from container.training.scoring.evaluation import evaluate


def main() -> None:
    """Evaluate the weights argv[2] on the job in argv[1]."""
    root, weights = Path(sys.argv[1]), Path(sys.argv[2])
    environment = Environment.read(root)
    job = hyperparameters.load(environment.hyperparameters)
    network = SegmentationNetwork(job.algorithm, job.backbone, job.num_classes)
    devices, stop = [mx.cpu()], threading.Event()
    load_weights(network, weights, devices)
    network.hybridize()
    loader = Loader(open_samples(environment, "validation", job), job, stop)
    result = evaluate(loader, MXNetEvaluator(network, devices, stop), job.num_classes, stop)
    iou = [None if np.isnan(value) else float(value) for value in result.confusions[0].iou()]
    print(json.dumps({"mIOU": result.confusions[0].miou, "iou": iou, "complete": result.complete}))


if __name__ == "__main__":
    main()
