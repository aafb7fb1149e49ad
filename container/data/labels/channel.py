"""The `label_map` channel: the label map of each channel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from container.data.labels.label_maps import LabelMap
from container.environment import Channel
from container.errors import ClientError, printable

LOG = logging.getLogger(__name__)

CHANNEL = "label_map"


def check_label_maps(channels: Mapping[str, Channel], used: list[str]) -> None:
    """Raise ClientError if the `label_map` channel has no file for the channels `used`; warn of missing files."""
    if CHANNEL not in channels:
        return
    channel = channels[CHANNEL]
    paths = {name: _find(channel, name) for name in used}
    files = sorted(path for path in channel.path.rglob("*") if path.is_file() and not path.name.startswith("."))
    expected = [_file_name(name) for name in used]
    if not any(paths.values()):
        raise ClientError(
            f"channel label_map does not contain {' or '.join(expected)}. Rename its files, or remove the channel. It "
            "contains",
            [path.relative_to(channel.path).as_posix() for path in files] or ["no files"],
        )
    for name, path in paths.items():
        if path is None:
            LOG.warning(
                "channel label_map does not contain %s. The job uses %s for the annotations of channel %s.",
                _file_name(name),
                LabelMap().content,
                name,
            )
    for path in files:
        if path not in paths.values():
            LOG.warning("%s is skipped. The label maps of this job are %s.", printable(str(path)), ", ".join(expected))


def read_label_map(channels: Mapping[str, Channel], name: str) -> LabelMap:
    """Return the label map of channel `name`, or the default; raises ClientError that contains the path."""
    path = _find(channels[CHANNEL], name) if CHANNEL in channels else None
    return LabelMap.read(path) if path else LabelMap()


def _file_name(channel: str) -> str:
    return f"{channel}_label_map.json"


def _find(channel: Channel, name: str) -> Path | None:
    """Find the file in any directory of the channel, because an S3 prefix without a slash at its end adds one."""
    if channel.input_mode == "Pipe":
        raise ClientError(
            "channel label_map is in Pipe mode, in which files have no names. Set its TrainingInputMode to File "
            "(input_mode='File'). The other channels can use Pipe mode"
        )
    paths = sorted(path for path in channel.path.rglob(_file_name(name)) if path.is_file())
    if len(paths) > 1:
        raise ClientError(
            f"channel {CHANNEL} contains {len(paths)} files {_file_name(name)}. Keep one", list(map(str, paths))
        )
    return paths[0] if paths else None
