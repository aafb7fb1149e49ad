"""Jobs on several hosts: real processes with real sockets, each host at a loopback address of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from tests.conftest import PROGRAM, job_factory

SETTINGS = {"backbone": "resnet-18", "_report_minutes": "0", "_gradient_scale": "mean", "optimizer": "nag"}


def free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return int(any_socket.getsockname()[1])


def lay_out(root: Path, count: int, train: int = 6, validation: int = 3, **changes: Any) -> list[Path]:
    """Lay out one job for `count` hosts, each with the same files; returns their roots, the first host's first."""
    job_factory(root / "1")(train, validation, **{**SETTINGS, "_ps_port": str(free_port()), **changes})
    roots = [root / str(number) for number in range(1, count + 1)]
    for other in roots[1:]:
        shutil.copytree(roots[0], other)
    for host in roots:
        config = {"current_host": address(host), "hosts": [address(each) for each in roots]}
        (host / "input/config/resourceconfig.json").write_text(json.dumps(config))
    return roots


def address(root: Path) -> str:
    """The name of the host whose root this is: an address, so that no resolver has to know it."""
    return f"127.0.0.{root.name}"


STARTED: list[subprocess.Popen[str]] = []
BEGINNING = f"""
import sys; sys.path.insert(0, {str(PROGRAM)!r})
from container.training.signals import stop_on_sigterm
stop = stop_on_sigterm()
from container.training.job import main
"""
# nothing by which parts of a batch tell from the whole: batch statistics, dropout
EXACT = """
import container.mx.weights.initial_network as start
assert start.norm_settings  # a name that nobody uses would change nothing
start.norm_settings = lambda job, devices, hosts: {"norm_kwargs": {"use_global_stats": True}}
dropout = mx.gluon.nn.Dropout.__init__
mx.gluon.nn.Dropout.__init__ = lambda self, rate, **settings: dropout(self, 0.0, **settings)
"""

# the last host's weights are no longer finite before some of its steps
SPOILT = """
import os
from container.mx.trainer import Trainer
step, steps, spoilt = Trainer.step, iter(range(2**30)), os.environ.get("SPOILT_STEPS", "").split()
def spoil(self, batch, rate):
    if str(next(steps)) in spoilt and self.hosts.index == self.hosts.count - 1:
        for name, parameter in self.network._collect_params_with_prefix().items():
            if name.endswith("weight"):
                parameter.list_data()[-1][:] = float("nan")
    return step(self, batch, rate)
Trainer.step = spoil
"""


def stream(root: Path, pairs: slice, sharded: bool) -> list[str]:
    """Turn a host's directories into manifests of some of its training pairs; returns the command that streams them."""
    subprocess.run(
        [sys.executable, "-m", "local_test.convert", "directories", str(root / "input/data")], check=True, cwd=PROGRAM
    )
    manifest = root / "input/train.manifest"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[pairs]))
    (root / "sharded").write_text("ShardedByS3Key" if sharded else "FullyReplicated")
    channels = [f"--channel={name}={root}/input/{name}.manifest" for name in ("train", "validation")]
    return [sys.executable, "-m", "local_test.pipe_feeder", "--root", str(root), *channels, "--"]


# the feeder writes what the platform tells of the channels, but knows one host only
STREAMED = """
import pathlib, os
root = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
config = root / "input/config/inputdataconfig.json"
if (root / "sharded").exists():
    config.write_text(config.read_text().replace("FullyReplicated", (root / "sharded").read_text()))
"""


def program(*changes: str) -> str:
    """The program `train` with changes to it, lines of Python each."""
    return "".join((BEGINNING, *changes, "sys.exit(main(stop))"))


def on_contexts(count: int) -> str:
    """Let the program train on so many CPU contexts."""
    return f"""
import mxnet as mx, container.mx.devices as devices
assert devices.choose_devices
devices.choose_devices = lambda: [mx.cpu(number) for number in range({count})]
"""


def start(root: Path, devices: int = 0, feeder: Sequence[str] = (), **variables: str) -> subprocess.Popen[str]:
    """Start a host on one thread; with `devices`, on so many CPU contexts and with `EXACT`."""
    exact = [on_contexts(devices), EXACT, SPOILT] if devices else []
    process = subprocess.Popen(
        [*feeder, sys.executable, "-c", program(STREAMED, *exact)],
        cwd=PROGRAM,
        stdout=(root / "log").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(root), "OMP_NUM_THREADS": "1", **variables},
    )
    STARTED.append(process)
    return process


def log(root: Path) -> str:
    return (root / "log").read_text()


def run(roots: Sequence[Path], devices: int = 0, **variables: str) -> None:
    """Run a job that must succeed on every host."""
    processes = [start(root, devices, **variables) for root in roots]
    for root, process in zip(roots, processes, strict=True):
        assert process.wait(300) == 0, log(root)


def failure(root: Path) -> str:
    return (root / "output/failure").read_text()


def weights(root: Path, name: str = "model_algo-1") -> Mapping[str, np.ndarray]:
    return {key: array.asnumpy() for key, array in mx.nd.load(str(root / "model" / name)).items()}


def shard(roots: Sequence[Path], **kept: Sequence[int]) -> None:
    """Leave to each host so many pairs of a channel, one after the other, as ShardedByS3Key deals them out.

    The annotations of `train` are dealt out too, those of `validation` are on every host.
    """
    channels = {name: {"TrainingInputMode": "File"} for name in ("train", "validation")}
    channels |= {f"{name}_annotation": {"TrainingInputMode": "File"} for name in channels}
    for channel, counts in kept.items():
        sharded = [channel, *([f"{channel}_annotation"] if channel == "train" else [])]
        for name in sharded:
            channels[name]["S3DistributionType"] = "ShardedByS3Key"
            ends = np.cumsum(counts)
            for root, start, end in zip(roots, ends - counts, ends, strict=True):
                for path in sorted((root / "input/data" / name).iterdir())[:start]:
                    path.unlink()
                for path in sorted((root / "input/data" / name).iterdir())[end - start :]:
                    path.unlink()
    for root in roots:
        (root / "input/config/inputdataconfig.json").write_text(json.dumps(channels))
