"""The figures to quote: every pixel of every image, at its own size, with the best weights."""

from __future__ import annotations

import logging
from typing import Any

import mxnet as mx
import numpy as np

from container.data.loader import Loader
from container.mx.trainer import Trainer

LOG = logging.getLogger(__name__)


def score_full_size(trainer: Trainer, loader: Loader, channel: str, num_classes: int) -> dict[str, Any] | None:
    """Score a channel and return `images`, `mIOU`, `pixel_accuracy`, `iou` per class and `confusion`.

    The IoU of a class that is neither in truth nor in prediction is None.
    Images too large for the device cost the figures, not the job: the result is None then.
    """
    try:
        confusion, images = trainer.evaluate(loader.full_size_epoch(), num_classes)
    except mx.MXNetError as error:
        LOG.error("channel %s could not be scored at full size: %s", channel, str(error).splitlines()[0])
        return None
    LOG.info("full-size %s mIOU: %.4f, pixel_accuracy: %.4f", channel, confusion.miou, confusion.pixel_accuracy)
    return {
        "images": images,
        "mIOU": confusion.miou,
        "pixel_accuracy": confusion.pixel_accuracy,
        "iou": [None if np.isnan(score) else float(score) for score in confusion.iou()],
        "confusion": confusion.counts.tolist(),
    }
