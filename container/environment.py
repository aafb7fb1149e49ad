"""What the platform tells the container: paths, channels and settings, each read once."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from container.errors import ClientError

BASE_DIR_VARIABLE = "SAGEMAKER_BASE_DIR"


@dataclasses.dataclass(frozen=True)
class Channel:
    """One input channel; `path` is its directory, or the stem of its FIFOs in Pipe mode."""

    name: str
    path: Path
    input_mode: str = "File"
    content_type: str | None = None
    record_wrapper: str = "None"


@dataclasses.dataclass(frozen=True)
class Environment:
    """Everything a training job is given."""

    root: Path
    hyperparameters: Mapping[str, Any]
    channels: Mapping[str, Channel]
    current_host: str
    hosts: tuple[str, ...]
    pipe_timeout: int = 600  # seconds for which a Pipe channel may be silent

    @property
    def model_dir(self) -> Path:
        """What becomes `model.tar.gz`."""
        return self.root / "model"

    @property
    def checkpoint_dir(self) -> Path:
        """What the platform keeps in S3 while the job runs, and gives back to it when it starts again."""
        return self.root / "checkpoints"

    @property
    def output_data_dir(self) -> Path:
        """What becomes `output.tar.gz`."""
        return self.root / "output" / "data"

    @classmethod
    def read(cls, root: Path) -> Environment:
        """Read the job's configuration below `root`; raises ClientError for what is missing or unreadable."""
        if not (root / "input" / "config" / "hyperparameters.json").is_file():
            raise ClientError(
                f"there is no {root}/input/config/hyperparameters.json: mount the job's directory at {root}, "
                f"or set {BASE_DIR_VARIABLE} to it"
            )
        toolkit = _toolkit(root)
        hosts = _read(toolkit.read_resource_config, root, {"current_host": "algo-1", "hosts": ["algo-1"]})
        return cls(
            root=root,
            hyperparameters=_read(toolkit.read_hyperparameters, root, {}),
            channels=_channels(root, _read(toolkit.read_input_data_config, root, {})),
            current_host=str(hosts.get("current_host", "algo-1")),
            hosts=tuple(hosts.get("hosts", ["algo-1"])),
            pipe_timeout=Integers(os.environ).read("PIPE_TIMEOUT_SECONDS", default=600),
        )


@dataclasses.dataclass(frozen=True)
class Integers:
    """Environment variables that are whole numbers."""

    variables: Mapping[str, str]

    def read(self, *names: str, default: int) -> int:
        """Return the first of `names` that is set, as a whole number above zero."""
        for name in names:
            text = self.variables.get(name, "").strip()
            if text:
                if not text.isdecimal() or int(text) == 0:
                    raise ClientError(f"the environment variable {name} must be a whole number above 0, not {text!r}")
                return int(text)
        return default


def base_dir(variables: Mapping[str, str] = os.environ) -> Path:
    """Return the root of the platform's tree: SAGEMAKER_BASE_DIR, or /opt/ml."""
    return Path(variables.get(BASE_DIR_VARIABLE) or "/opt/ml").absolute()


def cpu_count() -> int:
    """Return how many CPUs this process may use, by its affinity and its cgroup's quota, at least 1."""
    granted = len(os.sched_getaffinity(0))
    for quota in (_cgroup2_quota(), _cgroup1_quota()):
        if quota is not None:
            granted = min(granted, max(1, round(quota)))
    return granted


def memory_limit() -> int:
    """Return the bytes of memory that this container may use: its cgroup's limit, or all the machine has."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(machine, int(Path(path).read_text()))
        except (OSError, ValueError):  # another version of cgroups, or `max`
            continue
    return machine


def memory_available() -> int:
    """Return the bytes of memory that this process may still take, of its limit and of what the machine has left."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    left = memory_limit() - resident
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            left = min(left, int(line.split()[1]) * 1024)
    return max(0, left)


def _cgroup2_quota() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _cgroup1_quota() -> float | None:
    folder = Path("/sys/fs/cgroup/cpu")
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None


def _toolkit(root: Path) -> ModuleType:
    """Import the training toolkit's environment for `root`; it settles its paths when it is imported."""
    os.environ[BASE_DIR_VARIABLE] = str(root)
    logging.getLogger("sagemaker-training-toolkit").setLevel(logging.WARNING)  # it reports plain strings as unparsable
    from sagemaker_training import environment

    if environment.base_dir != str(root):
        importlib.reload(environment)
    return environment


def _read(read: Any, root: Path, default: dict[str, Any]) -> dict[str, Any]:
    """Call one of the toolkit's readers; an absent file gives `default`."""
    try:
        content = read()
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise ClientError(f"{root}/input/config: {read.__name__} found no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ClientError(f"{root}/input/config: {read.__name__} found no JSON object")
    return content


def _channels(root: Path, config: Mapping[str, Mapping[str, str]]) -> dict[str, Channel]:
    """Describe the channels; without a configuration every directory below input/data is a File channel."""
    data = root / "input" / "data"
    if not config and data.is_dir():
        config = {folder.name: {} for folder in data.iterdir() if folder.is_dir() and not folder.name.startswith(".")}
    return {
        name: Channel(
            name=name,
            path=data / name,
            input_mode=entry.get("TrainingInputMode") or "File",
            content_type=entry.get("ContentType") or None,
            record_wrapper=entry.get("RecordWrapperType") or "None",
        )
        for name, entry in sorted(config.items())
    }
