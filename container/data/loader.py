"""The three ways in which a channel is read: augmented for training, cropped for validation, whole for the report."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator

import numpy as np

from container.data.augment import centre_crop, random_crop
from container.data.batches import Batch, Pair, Rollover, batches, groups
from container.data.samples import Sample, Samples, decode_sample
from container.environment import cpu_count
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)


class Loader:
    """Reads one channel's samples as the hyperparameters say."""

    def __init__(self, samples: Samples, hyperparameters: Hyperparameters) -> None:
        self._samples = samples
        self.label_map = samples.label_map
        self._hyperparameters = hyperparameters
        self._workers = min(hyperparameters.workers, cpu_count())
        self._seed = secrets.randbits(32) if hyperparameters.seed is None else hyperparameters.seed
        self._rollover = Rollover(hyperparameters.mini_batch_size)
        self._told = threading.Event()

    def training_epoch(self, epoch: int) -> Iterator[Batch]:
        """Make one shuffled, augmented pass in full batches of square crops."""
        job = self._hyperparameters

        def transform(sample: Sample, number: int) -> Pair:
            rng = np.random.default_rng((self._seed, epoch, number))
            return random_crop(*self._decode(sample), job.base_size, job.crop, rng)

        order = np.random.default_rng((self._seed, epoch)) if job.shuffle_buffer else None
        return batches(self._rollover.groups(self._samples.epoch(order)), transform, self._workers)

    def validation_epoch(self) -> Iterator[Batch]:
        """Make one pass in order: every image once, its centre square scaled to the crop."""
        job = self._hyperparameters

        def transform(sample: Sample, number: int) -> Pair:
            return centre_crop(*self._decode(sample), job.crop)

        grouped = groups(self._samples.epoch(None), job.validation_mini_batch_size)
        return batches(grouped, transform, self._workers)

    def full_size_epoch(self) -> Iterator[Batch]:
        """Make one pass in order: every image once, at its own size, one at a time."""
        return batches(groups(self._samples.epoch(None), 1), lambda sample, _: self._decode(sample), self._workers)

    def _decode(self, sample: Sample) -> Pair:
        image, labels, unnamed = decode_sample(sample, self.label_map, self._hyperparameters.num_classes)
        if unnamed and not self._told.is_set():
            self._told.set()
            LOG.warning(
                "the label map of channel %s does not name every pixel value: such pixels are ignored, "
                "%d of them in the first image concerned (%s)", self._samples.channel, unnamed, sample.name,
            )
        return image, labels
