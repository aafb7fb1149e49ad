"""The `label_map` channel: which file belongs to which channel."""

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
    """Raise ClientError when the channel `label_map` holds nothing for the channels `used`; warn of what it lacks."""
    if CHANNEL not in channels:
        return
    channel = channels[CHANNEL]
    found = {name: _find(channel, name) for name in used}
    given = sorted(path for path in channel.path.rglob("*") if path.is_file() and not path.name.startswith("."))
    expected = [_file_name(name) for name in used]
    if not any(found.values()):
        raise ClientError(
            f"channel label_map holds no {' and no '.join(expected)}: name its files so, or leave it out; it holds",
            [path.relative_to(channel.path).as_posix() for path in given] or ["nothing"],
        )
    for name, path in found.items():
        if path is None:
            LOG.warning(
                "channel label_map holds no %s: the annotations of channel %s are read by %s",
                _file_name(name),
                name,
                LabelMap().content,
            )
    for path in given:
        if path not in found.values():
            LOG.warning(
                "%s is no label map of this job (%s) and is passed over", printable(str(path)), ", ".join(expected)
            )


def read_label_map(channels: Mapping[str, Channel], name: str) -> LabelMap:
    """Read the label map of channel `name`; without one, pixels are labels. Raises ClientError that names the file."""
    path = _find(channels[CHANNEL], name) if CHANNEL in channels else None
    return LabelMap.read(path) if path else LabelMap()


def _file_name(channel: str) -> str:
    return f"{channel}_label_map.json"


def _find(channel: Channel, name: str) -> Path | None:
    """Find the file wherever it lies below the channel: a prefix without its final slash puts it into a folder."""
    if channel.input_mode == "Pipe":
        raise ClientError(
            "channel label_map is in Pipe mode, whose stream does not say which file is which: give this channel "
            "input_mode='File' (TrainingInputMode File), the others may stay as they are"
        )
    found = sorted(path for path in channel.path.rglob(_file_name(name)) if path.is_file())
    if len(found) > 1:
        raise ClientError(f"channel {CHANNEL} holds several {_file_name(name)}: keep one", list(map(str, found)))
    return found[0] if found else None
