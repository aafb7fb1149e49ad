"""Loaders of a channel: augmented for training, center crops for validation, full images for evaluation."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from container.artifact.classes import ClassEntry
from container.data.audit.audit import Audit
from container.data.audit.statistics import UnusablePairError
from container.data.augment import center_crop, random_crop
from container.data.augmentation_config import parse_augmentation
from container.data.batches import Batch, Pair, Rollover, batches, groups
from container.data.full_images import LabeledImage, SkippedImage, read_full_images
from container.data.labels.class_counts import ClassCounts, rare_pixel
from container.data.labels.class_names import known_classes
from container.data.rollover import names_of, pack, unpack
from container.data.sample_decoding import Decoded, decode_sample
from container.data.samples import Sample, Samples
from container.data.sharding import ALL, Shard
from container.environment import cpu_count
from container.errors import ClientError
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

_WHOLE = 2**32 - 1  # stands for the epoch in the seed of the whole images' order


class BadRecords:
    """The budget of unusable samples in one pass."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._lock = threading.Lock()

    def skip(self, error: ClientError) -> None:
        """Log the error of a sample; raises it if the limit of bad records is reached."""
        with self._lock:
            if not self._left:
                raise error
            self._left -= 1
        LOG.warning("skipped: %s", error)


class Loader:
    """Reads one channel's samples as the hyperparameters say; passes end early once `stop` is set.

    The first pass over a channel that `audit` has not seen whole is watched by it, and ends in its verdict. Of several
    hosts, each host loads its part of every batch, according to `shard`. The part can be empty.
    """

    def __init__(
        self,
        samples: Samples,
        hyperparameters: Hyperparameters,
        stop: threading.Event,
        audit: Audit | None = None,
        shard: Shard = ALL,
    ) -> None:
        self.shard = shard
        self._samples = samples
        self._audit = audit
        self.label_map = samples.label_map
        self._hyperparameters = hyperparameters
        self._stop = stop
        self._workers = min(hyperparameters.workers, cpu_count())
        self._seed = secrets.randbits(32) if hyperparameters.seed is None else hyperparameters.seed
        self._rollover = Rollover(max(1, shard.size(hyperparameters.mini_batch_size)))
        self._opening: list[Sample] = []
        self._strengths = parse_augmentation(hyperparameters.augmentation)
        self._class_counts: ClassCounts | None = None  # of an earlier start, or of all hosts

    @property
    def classes(self) -> dict[int, ClassEntry]:
        """What the job and the data have said of the classes so far, ascending by id; empty when nothing."""
        return known_classes(self._samples, self._hyperparameters.num_classes, self._hyperparameters.named_classes)

    @property
    def enterable(self) -> bool:
        """Whether a pass can begin in its midst: a stream begins at its beginning."""
        return self._samples.listed() is not None

    @property
    def count(self) -> int | None:
        """Samples of a pass; None for a stream, whose length is not known."""
        listed = self._samples.listed()
        return None if listed is None else len(listed)

    @property
    def class_counts(self) -> ClassCounts | None:
        """How often each class occurs in the channel; None until all of it has been seen, by the audit or a pass."""
        return self._class_counts or (self._audit.class_counts(self._samples.channel) if self._audit else None)

    @property
    def counts_are_given(self) -> bool:
        """Whether `class_counts` are those of `restore_class_counts`, not this loader's own."""
        return self._class_counts is not None

    def restore_class_counts(self, counts: Mapping[str, Any] | None) -> None:
        """Take over what an earlier start of the job has counted, or all hosts together; it holds from now on."""
        if counts:
            self._class_counts = ClassCounts(counts["pixels"], counts["within"])

    def rewind(self) -> None:
        """Let the next pass open as the one that was given up did."""
        self._rollover.kept = list(self._opening)

    def identity(self) -> dict[str, Any]:
        """Tell cheaply what the channel holds: how many samples, a digest of their names, the label map.

        Of a stream, only the label map is known beforehand.
        """
        identity: dict[str, Any] = {"label_map": self.label_map.content}
        if listed := self._samples.listed():
            names = "\n".join(names_of(listed))
            identity |= {"samples": len(listed), "names": hashlib.sha256(names.encode()).hexdigest()}
        return identity

    def digest_names(self) -> int:
        """Return a number below 2**48 for the names of a list's samples; those of all shards add up to that of all."""
        names = (os.path.basename(sample.name) for sample in self._samples.listed() or ())
        return sum(int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6], "big") for name in names) % 2**48

    def save_rollover(self, path: Path, under_way: bool) -> list[dict[str, Any]]:
        """Describe the first samples of the current or next pass. `path` stores the records of a stream."""
        return pack(self._opening if under_way else self._rollover.kept, self._samples.listed(), path)

    def restore_rollover(self, carried: list[dict[str, Any]], path: Path) -> None:
        """Let the next pass open with the samples that `save_rollover` described."""
        if self.shard.sharded and self.shard.index:
            return  # they are the first host's
        self._rollover.kept = unpack(carried, self._samples.listed(), path)

    def training_epoch(self, epoch: int, skip: int = 0) -> Generator[Batch, None, None]:
        """Make one shuffled, augmented pass in full batches of square crops, without the first `skip` batches."""
        job = self._hyperparameters
        self._opening = list(self._rollover.kept)
        order = np.random.default_rng((self._seed, epoch)) if job.shuffle_buffer else None

        counts = self.class_counts

        def crop(pair: Pair, number: int) -> Pair:
            rng, anchor = np.random.default_rng((self._seed, epoch, number)), None
            if job.rare_crops and rng.random() < job.rare_crops:
                anchor = rare_pixel(pair[1], job.num_classes, counts, rng)
            return random_crop(*pair, job.base_size, job.crop, rng, self._strengths, anchor)

        def read(stopped: threading.Event) -> Iterator[list[Sample]]:
            listed, seed = self._samples.listed(), self._seed if job.shuffle_buffer else None
            if self.shard.sharded and listed is not None:
                return self.shard.shard_groups(listed, job.mini_batch_size, epoch, seed)
            return self._rollover.groups(self._samples.epoch(order, stopped))

        return self._batches(read, crop, job.mini_batch_size, skip)

    def validation_epoch(self) -> Generator[Batch, None, None]:
        """Make one pass in order: every image once, its center square scaled to the crop."""
        job = self._hyperparameters
        size = job.validation_mini_batch_size
        return self._batches(
            lambda stopped: groups(self._samples.epoch(None, stopped), max(1, self.shard.size(size))),
            lambda pair, number: center_crop(*pair, job.crop),
            size,
        )

    def full_images(
        self, admit: Callable[[int], str | None], ahead: int, until: threading.Event, *, divided: bool = False
    ) -> Iterator[LabeledImage | SkippedImage]:
        """Make one pass over whole images, in a random order that the seed decides; see `container.data.full_images`.

        Of a `divided` pass this host makes its own part only.
        """
        channel = self._samples.channel
        order = np.random.default_rng((self._seed, _WHOLE))
        audit = self._audit if self._audit and self._audit.begin(channel) else None

        def decode(sample: Sample) -> Pair:
            try:
                decoded = self._decode(sample, digest=audit is not None)
            except UnusablePairError as error:
                if audit:
                    audit.watch_bad(channel, error)
                raise
            if audit:
                audit.watch(channel, decoded.seen)
            return decoded.image, decoded.labels

        samples = self._samples.epoch(order, until)
        if divided:
            samples = self.shard.share(samples)
        yield from read_full_images(samples, decode, admit, ahead, self._workers, until)
        if audit and not until.is_set():
            audit.end(channel)

    def _decode(self, sample: Sample, digest: bool) -> Decoded:
        """Decode a sample with the settings of the job; `digest` as in `decode_sample`. Raises UnusablePairError."""
        job = self._hyperparameters
        return decode_sample(
            sample,
            self.label_map,
            job.num_classes,
            job.exif_orientation,
            digest=digest,
            image_range=job.scaled_range,
        )

    def _batches(
        self,
        read: Callable[[threading.Event], Iterator[list[Sample]]],
        crop: Callable[[Pair, int], Pair],
        batch_size: int,
        skip: int = 0,
    ) -> Generator[Batch, None, None]:
        """Make one pass: read groups of samples, decode and crop each, passing over as many bad ones as are allowed."""
        job = self._hyperparameters
        bad = BadRecords(job.max_bad_records)
        channel = self._samples.channel
        watching = self._audit if self._audit and not skip and self._audit.begin(channel) else None
        carried = len(self._opening)  # samples that open this pass, and that it will bring again

        def transform(sample: Sample, number: int) -> Pair | None:
            audit = watching if number >= carried else None
            try:
                decoded = self._decode(sample, digest=audit is not None)
            except UnusablePairError as error:
                if not audit:
                    bad.skip(error)
                elif not audit.watch_bad(channel, error):
                    raise
                return None
            if audit:
                audit.watch(channel, decoded.seen)
            return crop((decoded.image, decoded.labels), number)

        try:
            part = functools.partial(self.shard.part, batch_size)
            side = None if self.shard.alone else job.crop
            yield from batches(read, transform, self._workers, self._stop, skip, part, side)
        except ClientError as error:
            if watching:
                watching.give_up(channel, error)
            raise
        if watching and not self._stop.is_set():
            for sample in self._rollover.kept:  # read, but left for the next pass
                transform(sample, carried)
            watching.end(channel)
