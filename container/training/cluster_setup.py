"""Agreement of the hosts before training: samples, seed, checkpoint.

Every function is called by every host at the same point.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from container.data.audit.audit import Audit
from container.data.hosts import Hosts
from container.data.labels.class_counts import ClassCounts
from container.data.labels.depths import RESAVE, explain, find_mixed_hosts, summarize
from container.data.loader import Loader
from container.data.samples import FileSamples, Samples
from container.data.sharding import ALL, Shard, divide_shards
from container.environment import Channel, Environment, cpu_count
from container.errors import ClientError, JobError
from container.hyperparameters import Hyperparameters
from container.training.checkpoints.directory import Checkpoint, CheckpointDirectory


@contextlib.contextmanager
def joined(
    environment: Environment, job: Hyperparameters, requested: threading.Event, fail: Callable[[JobError], None]
) -> Iterator[Hosts]:
    """Be one of the job's hosts meanwhile; see `container.cluster.cluster` for several hosts."""
    if len(environment.hosts) == 1:
        yield Hosts(requested, environment.hosts, environment.current_host)
        return
    if job.mini_batch_size < len(environment.hosts):
        raise ClientError(
            f"mini_batch_size is {job.mini_batch_size}, for {len(environment.hosts)} instances together: raise it, or "
            "take fewer instances, so that each has an image"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))
    from container.cluster.cluster import Cluster

    with Cluster(environment, job, requested, fail).joined() as hosts:
        yield hosts


def settle(job: Hyperparameters, hosts: Hosts) -> Hyperparameters:
    """Return the job with the first host's seed."""
    return dataclasses.replace(job, seed=hosts.total((job.seed or 0) if hosts.first else 0)[0])


def divide(
    hosts: Hosts, channels: Mapping[str, Channel], samples: Mapping[str, Samples], job: Hyperparameters
) -> dict[str, Shard]:
    """Say which part of every channel is this host's; raises ClientError when hosts do not hold what they should."""
    if hosts.count == 1:
        return dict.fromkeys(samples, ALL)
    return {name: _divide(hosts, name, channels[name].sharded, each, job) for name, each in samples.items()}


def _divide(hosts: Hosts, name: str, sharded: bool, samples: Samples, job: Hyperparameters) -> Shard:
    listed = samples.listed()
    held = hosts.collect(0 if listed is None else 1 + len(listed))
    counts = [None if not number else number - 1 for (number,) in held]
    if sharded:
        if not any(count != 0 for count in counts):
            raise ClientError(f"channel {name} holds no image on any host: put .jpg, .jpeg or .png files there")
        return divide_shards(counts, hosts.index, job.mini_batch_size)
    if len(set(counts)) > 1:
        told = ", ".join(f"{count} on {host}" for host, count in zip(hosts.names, counts, strict=True))
        raise ClientError(
            f"channel {name} is FullyReplicated, but the hosts hold different numbers of samples ({told}): leave the "
            "data as they are while a job starts, and start it again"
        )
    return Shard(hosts.index, hosts.count)


def count_samples(hosts: Hosts, samples: Samples | None, sharded: bool) -> int:
    """Count the samples of a channel of files, over all hosts where each has a shard; 0 for a stream."""
    count = len(samples) if isinstance(samples, FileSamples) else 0
    return hosts.total(count)[0] if sharded else count


def check_classes(hosts: Hosts, audit: Audit, sharded: Mapping[str, bool]) -> None:
    """Raise ClientError when the shards that were audited whole have too few classes in all; one shard may."""
    for channel, is_sharded in sharded.items():
        if not is_sharded:
            continue
        classes = [label for label, pixels in enumerate(hosts.total(*audit.labels(channel))) if pixels]
        if len(classes) <= (channel == "train"):
            raise ClientError(
                f"all labeled pixels of channel {channel}_annotation are of {len(classes)} classes, over all hosts: "
                "there is nothing to learn or to score; see audit.json for the pixel values, and give a label map if "
                "they are no class ids"
            )


def check_depths(hosts: Hosts, audit: Audit, sharded: Mapping[str, bool]) -> None:
    """Raise ClientError when shards have gray annotations whose bit depths contradict each other; one shard may not."""
    for channel, is_sharded in sharded.items():
        if is_sharded and (mixed := find_mixed_hosts(hosts.collect(*summarize(audit.depths(channel))))):
            raise ClientError(f"{explain(f'channel {channel} has, on different hosts,', *mixed)}. {RESAVE}")


def add_class_counts(hosts: Hosts, train: Loader, num_classes: int) -> ClassCounts | None:
    """Return how often each class occurs on all hosts, which every loader then knows; None until all have counted.

    Where every host has counted all samples it is a multiple of that: only proportions matter.
    """
    own = train.class_counts
    if hosts.count == 1 or train.counts_are_given:
        return own
    none = [0] * num_classes
    numbers = [*own.pixels, *own.within] if own else [*none, *none]
    missing, *sums = hosts.total(own is None and train.count != 0, *map(int, numbers))
    if missing:
        return None
    found = ClassCounts(sums[:num_classes], sums[num_classes:])
    train.restore_class_counts(found.as_dict())
    return found


def identify(hosts: Hosts, loaders: Mapping[str, Loader]) -> dict[str, dict[str, Any]]:
    """Tell what the channels hold, all shards together."""
    data = {}
    for channel, loader in loaders.items():
        data[channel] = loader.identity()
        if loader.division.sharded and loader.count is not None:
            count, names = hosts.total(loader.count, loader.digest_names())
            data[channel] |= {"samples": count, "names": f"{names % 2**48:x}"}
    return data


@contextlib.contextmanager
def sent(hosts: Hosts, checkpoint: Checkpoint | None) -> Iterator[Checkpoint | None]:
    """Give every host the first one's checkpoint, whatever lies on its own disk."""
    if hosts.count == 1 or not hosts.decide(checkpoint is not None):
        yield checkpoint
        return
    folder = checkpoint.folder if checkpoint else Path()
    names = [path.name for path in sorted(folder.iterdir())] if checkpoint else []
    name, names = json.loads(hosts.send(lambda: json.dumps([folder.name, names]).encode()))
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / Path(name).name
        copy.mkdir()
        for each in map(os.path.basename, names):
            content = hosts.send((folder / each).read_bytes)
            if not hosts.first:
                (copy / each).write_bytes(content)
        yield checkpoint or CheckpointDirectory(Path(temporary)).newest()  # which proves that all has come as it was
