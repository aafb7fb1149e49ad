"""Paths, channels, and settings that SageMaker AI provides."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from container.artifact.json_files import describe, read_object
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
    sharded: bool = False  # whether each host has only a part of the channel


@dataclasses.dataclass(frozen=True)
class Environment:
    """Configuration of a training job."""

    root: Path
    hyperparameters: Mapping[str, Any]
    channels: Mapping[str, Channel]
    current_host: str
    hosts: tuple[str, ...]
    pipe_timeout: int = 600  # seconds that a Pipe channel can be without data
    job_name: str = ""  # name in SageMaker AI, which does not change if an interrupted job starts again
    cluster_timeout: int = 900  # seconds within which all hosts must join
    network_interface: str | None = None  # interface between the hosts, from SageMaker AI
    started: float = dataclasses.field(default_factory=time.time, compare=False)  # seconds since 1970

    @property
    def model_dir(self) -> Path:
        """Directory whose content becomes `model.tar.gz`."""
        return self.root / "model"

    @property
    def checkpoint_dir(self) -> Path:
        """Directory that SageMaker AI synchronizes with S3, and restores when the job starts again."""
        return self.root / "checkpoints"

    @property
    def output_data_dir(self) -> Path:
        """Directory whose content becomes `output.tar.gz`."""
        return self.root / "output" / "data"

    @classmethod
    def read(cls, root: Path) -> Environment:
        """Read the configuration of the job below `root`; raises ClientError for missing or unreadable files."""
        config = root / "input" / "config"
        if not (config / "hyperparameters.json").exists():
            raise ClientError(
                f"{root}/input/config/hyperparameters.json does not exist. Mount the directory of the job at {root}, "
                f"or set {BASE_DIR_VARIABLE} to its path."
            )
        current_host, hosts, interface = _hosts(config / "resourceconfig.json")
        channels = _channels(root)
        if len(hosts) == 1:  # the only shard is the complete channel
            channels = {name: dataclasses.replace(each, sharded=False) for name, each in channels.items()}
        return cls(
            root=root,
            hyperparameters=read_object(config / "hyperparameters.json"),
            channels=channels,
            current_host=current_host,
            hosts=hosts,
            pipe_timeout=Integers(os.environ).read("PIPE_TIMEOUT_SECONDS", default=600),
            job_name=os.environ.get("TRAINING_JOB_NAME", ""),
            cluster_timeout=Integers(os.environ).read("CLUSTER_TIMEOUT_SECONDS", default=900),
            network_interface=interface,
        )


@dataclasses.dataclass(frozen=True)
class Integers:
    """Reader of environment variables with integer values."""

    variables: Mapping[str, str]

    def read(self, *names: str, default: int) -> int:
        """Return the first variable of `names` that is set, as an integer above 0; raises ClientError."""
        for name in names:
            text = self.variables.get(name, "").strip()
            if text:
                if not text.isdecimal() or int(text) == 0:
                    raise ClientError(f"the environment variable {name} must be an integer above 0, not {text!r}")
                return int(text)
        return default


def base_dir(variables: Mapping[str, str] = os.environ) -> Path:
    """Return the root of the SageMaker AI directories: SAGEMAKER_BASE_DIR, or /opt/ml."""
    return Path(variables.get(BASE_DIR_VARIABLE) or "/opt/ml").absolute()


def cpu_count() -> int:
    """Return how many CPUs this process can use, limited by its affinity and its cgroup quota; at least 1."""
    granted = len(os.sched_getaffinity(0))
    for quota in (_cgroup2_quota(), _cgroup1_quota()):
        if quota is not None:
            granted = min(granted, max(1, round(quota)))
    return granted


@functools.cache
def processor_has(feature: str) -> bool:
    """Return whether /proc/cpuinfo lists a processor feature; False if the file does not exist."""
    try:
        return feature in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def memory_limit() -> int:
    """Return the bytes of memory that this container can use: its cgroup limit, or the memory of the machine."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(machine, int(Path(path).read_text()))
        except (OSError, ValueError):  # another version of cgroups, or `max`
            continue
    return machine


def memory_available() -> int:
    """Return the bytes of free memory for this process: the minimum of its limit and of the machine."""
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


def _read(path: Path) -> dict[str, Any]:
    """Read a configuration file of SageMaker AI; empty if it does not exist, for example in a local run."""
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}


def _hosts(path: Path) -> tuple[str, tuple[str, ...], str | None]:
    """Read the current host, all hosts, and the network interface; raises ClientError for invalid values."""
    config = _read(path)
    hosts = config.get("hosts", [config.get("current_host", "algo-1")])
    if not isinstance(hosts, list) or not hosts or not all(isinstance(host, str) and host for host in hosts):
        raise ClientError(f"{path}: hosts must be a list of host names, not {json.dumps(hosts)}")
    current = config.get("current_host", hosts[0] if len(hosts) == 1 else None)
    if not isinstance(current, str) or current not in hosts:
        raise ClientError(f"{path}: current_host must be one of hosts ({', '.join(hosts)}), not {json.dumps(current)}")
    interface = config.get("network_interface_name")
    return current, tuple(hosts), interface if isinstance(interface, str) and interface else None


def _channels(root: Path) -> dict[str, Channel]:
    """Read the channels; without a configuration, every directory below input/data is a File channel."""
    path, data = root / "input" / "config" / "inputdataconfig.json", root / "input" / "data"
    config = _read(path)
    if not config and data.is_dir():
        config = {folder.name: {} for folder in data.iterdir() if folder.is_dir() and not folder.name.startswith(".")}
    faults: list[str] = []
    channels = {name: _channel(name, data / name, entry, faults) for name, entry in sorted(config.items())}
    if faults:
        raise ClientError(f"{path} does not describe the channels", faults)
    return channels


def _channel(name: str, path: Path, entry: object, faults: list[str]) -> Channel:
    """Read one channel; errors of its entry are added to `faults`."""
    if not isinstance(entry, dict):
        faults.append(f"channel {name} is {describe(entry)}. It must be an object")
        entry = {}

    def choose(key: str, choices: tuple[str, ...]) -> str:
        """Return the value with the spelling of SageMaker AI; the first choice is the default."""
        value = entry.get(key) or choices[0]
        found = next((choice for choice in choices if choice.lower() == str(value).lower()), None)
        if found is None:
            faults.append(f"channel {name} has {key} {json.dumps(value)}. Use {' or '.join(choices)}")
        return found or choices[0]

    content_type = entry.get("ContentType") or None
    if not isinstance(content_type, (str, type(None))):
        faults.append(f"channel {name} has ContentType {json.dumps(content_type)}. It must be a string")
    return Channel(
        name=name,
        path=path,
        input_mode=choose("TrainingInputMode", ("File", "FastFile", "Pipe")),
        content_type=content_type,
        record_wrapper=choose("RecordWrapperType", ("None", "RecordIO")),
        sharded=choose("S3DistributionType", ("FullyReplicated", "ShardedByS3Key")) == "ShardedByS3Key",
    )
