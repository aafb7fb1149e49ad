"""Validation of the channels of a job by name and type."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from container.environment import Channel, Environment
from container.errors import ClientError

LOG = logging.getLogger(__name__)

# The kind of a file or record is detected from its bytes, not from the content type of the channel. So the default of
# S3 and the SDKs, `application/octet-stream`, is accepted.
_ANY = ("application/octet-stream", "binary/octet-stream")
_IMAGES = ("application/x-image", "image/jpeg", "image/jpg", "image/png", "application/x-recordio", *_ANY)
_MODELS = ("application/x-sagemaker-model", "application/x-tar", "application/gzip", "application/x-gzip", *_ANY)

_SAMPLES = ("train", "validation", "test")
_WEIGHTS = {"model": _MODELS, "pretrained": (*_MODELS, "application/zip")}
_FILES = ("label_map", *_WEIGHTS)  # channels without samples


def used_channels(environment: Environment) -> list[str]:
    """Return the channels of the job that contain samples."""
    return [channel for channel in _SAMPLES if channel in environment.channels]


def check_channels(environment: Environment) -> None:
    """Raise one ClientError that lists all missing and unsupported channels; warn of unused ones."""
    errors: list[str] = []
    for name in _SAMPLES:
        if name != "test" or name in environment.channels:
            errors += _find_missing(environment, name)
    for channel in environment.channels.values():
        errors += _find_unsupported(channel)
    if errors:
        raise ClientError("The input channels are not valid", errors)
    for reason in _find_unused(environment):
        LOG.warning("%s", reason)


def _find_missing(environment: Environment, name: str) -> Iterator[str]:
    """Yield errors if the channel or its annotations are missing."""
    channels = environment.channels
    is_streamed = name in channels and channels[name].input_mode == "Pipe"
    for needed in [name] if is_streamed else [name, f"{name}_annotation"]:
        if needed not in channels:
            yield f"channel {needed} is missing. The job has {', '.join(channels) or 'no channels'}"
        elif channels[needed].input_mode != "Pipe" and not channels[needed].path.is_dir():
            if not channels[needed].sharded:  # a host can have no files of a sharded channel
                yield f"channel {needed}: the directory {channels[needed].path} does not exist"
        elif channels[needed].input_mode == "Pipe" and not is_streamed and name in channels:
            yield f"channel {needed} is in Pipe mode, but channel {name} is not. Set its TrainingInputMode to File"


def _find_unsupported(channel: Channel) -> Iterator[str]:
    """Yield errors if settings of the channel are not supported."""
    has_weights, accepted = channel.name in _WEIGHTS, _WEIGHTS.get(channel.name, _IMAGES)
    if channel.name in _FILES and channel.sharded:
        yield (
            f"channel {channel.name} is ShardedByS3Key, but every host needs all of its files. Set its "
            "S3DataDistributionType to FullyReplicated"
        )
    if has_weights and channel.input_mode == "Pipe":
        yield f"channel {channel.name} is in Pipe mode, but its weights are files. Set its TrainingInputMode to File"
    elif has_weights and not channel.path.is_dir():
        yield f"channel {channel.name}: the directory {channel.path} does not exist"
    content_type = (channel.content_type or "").split(";")[0].strip().lower()
    if content_type and channel.name != "label_map" and content_type not in accepted:
        yield f"channel {channel.name} has ContentType {channel.content_type}. Use {' or '.join(accepted)}"


def _find_unused(environment: Environment) -> Iterator[str]:
    """Yield warnings about channels that the job does not use."""
    channels = environment.channels
    for name in channels:
        sampled = name.removesuffix("_annotation")
        if name in _SAMPLES or name in _FILES:
            continue
        if sampled not in _SAMPLES:
            known = ", ".join([*_SAMPLES, *(f"{each}_annotation" for each in _SAMPLES), *_FILES])
            yield f"channel {name} is ignored. The channels of this algorithm are {known}"
        elif sampled not in channels:
            yield f"channel {name} is ignored, because the job has no channel {sampled}"
        elif channels[sampled].input_mode == "Pipe":
            yield (
                f"channel {name} is ignored, because channel {sampled} is in Pipe mode, and its stream contains the "
                "annotations"
            )
