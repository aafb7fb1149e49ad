"""Agreement of the hosts on the data: shards, sample counts, classes, and bit depths.

Every host must call each function at the same point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from container.cluster.hosts import Hosts
from container.data.audit.audit import Audit
from container.data.labels.class_counts import ClassCounts
from container.data.labels.depths import RESAVE, explain, find_mixed_hosts, summarize
from container.data.loader import Loader
from container.data.samples import FileSamples, Samples
from container.data.sharding import ALL, Shard, divide_shards
from container.environment import Channel
from container.errors import ClientError


def create_shards(
    hosts: Hosts, channels: Mapping[str, Channel], samples: Mapping[str, Samples], batch_size: int
) -> dict[str, Shard]:
    """Return the part of every channel that belongs to this host; raises ClientError for inconsistent hosts."""
    if hosts.count == 1:
        return dict.fromkeys(samples, ALL)
    return {name: _create_shard(hosts, channels[name], each, batch_size) for name, each in samples.items()}


def _create_shard(hosts: Hosts, channel: Channel, samples: Samples, batch_size: int) -> Shard:
    name, listed = samples.channel, samples.listed()
    rows = hosts.gather(0 if listed is None else 1 + len(listed))
    counts = [None if not number else number - 1 for (number,) in rows]
    if channel.sharded:
        if not any(count != 0 for count in counts):
            raise ClientError(
                f"The channel {name} contains no images on any host. Add .jpg, .jpeg, or .png files to it."
            )
        return divide_shards(counts, hosts.index, batch_size)
    if len(set(counts)) > 1:
        numbers = ", ".join(f"{count} on {host}" for host, count in zip(hosts.names, counts, strict=True))
        raise ClientError(
            f"The channel {name} is FullyReplicated, but the hosts have different numbers of samples ({numbers}). "
            "Start the job again, and do not change the data while it starts."
        )
    return Shard(hosts.index, hosts.count)


def count_samples(hosts: Hosts, samples: Samples | None, sharded: bool) -> int:
    """Count the samples of a channel of files, over all hosts if each has a shard; 0 for a stream."""
    count = len(samples) if isinstance(samples, FileSamples) else 0
    return hosts.sum_integers(count)[0] if sharded else count


def check_shards(hosts: Hosts, audit: Audit, samples: Mapping[str, Samples], channels: Mapping[str, Channel]) -> None:
    """Check what a complete audit of one shard cannot decide alone: bit depths and classes over all hosts."""
    sharded = [name for name, each in samples.items() if channels[name].sharded and each.listed() is not None]
    for channel in sharded:
        check_depths(hosts, audit, channel)
    for channel in sharded:
        _check_classes(hosts, audit, channel)


def check_depths(hosts: Hosts, audit: Audit, channel: str) -> None:
    """Raise ClientError if gray annotations on different hosts have bit depths that contradict each other."""
    if mixed := find_mixed_hosts(hosts.gather(*summarize(audit.depths(channel)))):
        raise ClientError(f"{explain(f'channel {channel} has, on different hosts,', *mixed)}. {RESAVE}")


def _check_classes(hosts: Hosts, audit: Audit, channel: str) -> None:
    """Raise ClientError if all shards together have too few classes."""
    classes = [label for label, pixels in enumerate(hosts.sum_integers(*audit.labels(channel))) if pixels]
    if len(classes) <= (channel == "train"):
        raise ClientError(
            f"All labeled pixels of the channel {channel}_annotation on all hosts have {len(classes)} classes, which "
            "is too few to train or evaluate. See audit.json for the pixel values, and add a label map if they are not "
            "class IDs."
        )


def sum_class_counts(hosts: Hosts, train: Loader, num_classes: int) -> ClassCounts | None:
    """Return how often each class occurs on all hosts, and set it in `train`; None until all hosts have counted.

    If every host has counted all samples, the result is a multiple of the counts. Only proportions matter.
    """
    own = train.class_counts
    if hosts.count == 1 or train.counts_are_given:
        return own
    none = [0] * num_classes
    numbers = [*own.pixels, *own.within] if own else [*none, *none]
    missing, *sums = hosts.sum_integers(own is None and train.count != 0, *map(int, numbers))
    if missing:
        return None
    counts = ClassCounts(sums[:num_classes], sums[num_classes:])
    train.restore_class_counts(counts.as_dict())
    return counts


def identify_data(hosts: Hosts, loaders: Mapping[str, Loader]) -> dict[str, dict[str, Any]]:
    """Describe the samples of every channel over all hosts, to detect changes when a job resumes."""
    data = {}
    for channel, loader in loaders.items():
        data[channel] = loader.identity()
        if loader.shard.sharded and loader.count is not None:
            count, names = hosts.sum_integers(loader.count, loader.digest_names())
            data[channel] |= {"samples": count, "names": f"{names % 2**48:x}"}
    return data
