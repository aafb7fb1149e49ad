"""Validation of the channels of a job by name and type."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from container.environment import Channel, Environment
from container.errors import ClientError

LOG = logging.getLogger(__name__)

# What the platform knows of a channel's content decides nothing here: files and records are told by their bytes. So
# `application/octet-stream`, which S3 and the SDKs write where nobody said more, does no harm.
_ANY = ("application/octet-stream", "binary/octet-stream")
_PICTURES = ("application/x-image", "image/jpeg", "image/jpg", "image/png", "application/x-recordio", *_ANY)
_MODELS = ("application/x-sagemaker-model", "application/x-tar", "application/gzip", "application/x-gzip", *_ANY)

_SAMPLES = ("train", "validation", "test")
_WEIGHTS = {"model": ("an archive is", _MODELS), "pretrained": ("weights are", (*_MODELS, "application/zip"))}
_FILES = ("label_map", *_WEIGHTS)  # channels that hold files of another kind


def used_channels(environment: Environment) -> list[str]:
    """Name the channels of samples that the job has."""
    return [channel for channel in _SAMPLES if channel in environment.channels]


def check_channels(environment: Environment) -> None:
    """Raise one ClientError that lists every channel that is missing or of an unsupported kind; warn of unused ones."""
    faults: list[str] = []
    for name in _SAMPLES:
        if name != "test" or name in environment.channels:
            faults += _find_missing(environment, name)
    for channel in environment.channels.values():
        faults += _find_unfit(channel)
    if faults:
        raise ClientError("the input channels are not complete", faults)
    for reason in _find_unused(environment):
        LOG.warning("%s", reason)


def _find_missing(environment: Environment, name: str) -> Iterator[str]:
    """Say which of the channel and its annotations is not there."""
    channels = environment.channels
    is_streamed = name in channels and channels[name].input_mode == "Pipe"
    for needed in [name] if is_streamed else [name, f"{name}_annotation"]:
        if needed not in channels:
            yield f"channel {needed} is missing (given: {', '.join(channels) or 'none'})"
        elif channels[needed].input_mode != "Pipe" and not channels[needed].path.is_dir():
            if not channels[needed].sharded:  # else this host has no file of it
                yield f"channel {needed} has no directory {channels[needed].path}"
        elif channels[needed].input_mode == "Pipe" and not is_streamed and name in channels:
            yield f"channel {needed} is in Pipe mode, but channel {name} is not: set its TrainingInputMode to File"


def _find_unfit(channel: Channel) -> Iterator[str]:
    """Say what of the channel's kind is not supported."""
    weights, accepted = _WEIGHTS.get(channel.name, ("", _PICTURES))
    if channel.name in _FILES and channel.sharded:
        yield (
            f"channel {channel.name} is ShardedByS3Key, but every host needs all of it: set its S3DataDistributionType "
            "to FullyReplicated"
        )
    if weights and channel.input_mode == "Pipe":
        yield f"channel {channel.name} is in Pipe mode, but {weights} a file: set its TrainingInputMode to File"
    elif weights and not channel.path.is_dir():
        yield f"channel {channel.name} has no directory {channel.path}"
    content_type = (channel.content_type or "").split(";")[0].strip().lower()
    if content_type and channel.name != "label_map" and content_type not in accepted:
        yield f"channel {channel.name} has ContentType {channel.content_type}; use {' or '.join(accepted)}"


def _find_unused(environment: Environment) -> Iterator[str]:
    """Say which channels are passed over, and why."""
    channels = environment.channels
    for name in channels:
        sampled = name.removesuffix("_annotation")
        if name in _SAMPLES or name in _FILES:
            continue
        if sampled not in _SAMPLES:
            known = ", ".join([*_SAMPLES, *(f"{each}_annotation" for each in _SAMPLES), *_FILES])
            yield f"channel {name} is none of this algorithm's ({known}) and is passed over"
        elif sampled not in channels:
            yield f"channel {name} is passed over: there is no channel {sampled}"
        elif channels[sampled].input_mode == "Pipe":
            yield (
                f"channel {name} is passed over: channel {sampled} is in Pipe mode, where its own stream holds the "
                "annotations"
            )
