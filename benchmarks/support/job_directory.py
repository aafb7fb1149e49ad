"""The directory of a training job whose data is stored elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_job(root: Path, data: Path, settings: Mapping[str, Any], pretrained: Path | None = None) -> None:
    """Write the hyperparameters, and link the channels of `data` and the weights of the backbone."""
    channels = root / "input/data"
    channels.mkdir(parents=True)
    for channel in ("train", "train_annotation", "validation", "validation_annotation"):
        (channels / channel).symlink_to((data / channel).absolute())
    if pretrained:
        (channels / "pretrained").mkdir()
        (channels / "pretrained" / pretrained.name).symlink_to(pretrained.absolute())
    (root / "input/config").mkdir()
    values = {name: json.dumps(value) for name, value in settings.items()}
    (root / "input/config/hyperparameters.json").write_text(json.dumps(values))
