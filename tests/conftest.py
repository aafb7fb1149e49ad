"""What every test may use: the program on the path, patience, and small data sets in the platform's layout."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PROGRAM = Path(__file__).parent.parent
sys.path.insert(0, str(PROGRAM))

JobFactory = Callable[..., Path]
SmallDisk = Callable[..., contextlib.AbstractContextManager[Path]]


def pytest_configure(config: pytest.Config) -> None:
    """Share the CPUs among the workers of pytest-xdist: with more OpenMP threads than CPUs, threads wait for others."""
    workers = getattr(config.option, "numprocesses", None) or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))


def wait_until(condition: Callable[[], bool], seconds: float, told: Callable[[], str] = str) -> None:
    """Poll until the condition holds; fails after so many seconds, with what is told by then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{seconds} s have passed. {told()}"
        threading.Event().wait(0.01)


def write_pair(root: Path, channel: str, stem: str, rng: np.random.Generator, size: tuple[int, int] = (40, 48)) -> None:
    """Write one image with its annotation: class 1 is a bright square on a dark ground, the border is ignored."""
    height, width = size
    image = rng.integers(0, 90, (height, width, 3), np.uint8)
    labels = np.zeros((height, width), np.uint8)
    top, left = rng.integers(2, height // 2), rng.integers(2, width // 2)
    image[top : top + height // 3, left : left + width // 3] += 150
    labels[top : top + height // 3, left : left + width // 3] = 1
    labels[:1] = 255
    data = root / "input" / "data"
    for folder in (data / channel, data / f"{channel}_annotation"):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(data / channel / f"{stem}.jpg", quality=95)
    Image.fromarray(labels).save(data / f"{channel}_annotation" / f"{stem}.png")


def job_factory(root: Path) -> JobFactory:
    """Return a function that lays out a job with tiny images; keywords are hyperparameters, None drops one."""

    def make(train: int = 5, validation: int = 3, **changes: Any) -> Path:
        rng = np.random.default_rng(0)
        for channel, count in (("train", train), ("validation", validation)):
            for number in range(count):
                write_pair(root, channel, f"{channel}-{number}", rng)
        values = {
            "num_classes": "2",
            "backbone": "resnet-18",
            "num_training_samples": str(train),
            "crop_size": "32",
            "base_size": "48",
            "epochs": "1",
            "mini_batch_size": "2",
            "validation_mini_batch_size": "2",
            "use_pretrained_model": "False",
            "_seed": "7",
            **changes,
        }
        config = root / "input" / "config"
        config.mkdir(parents=True, exist_ok=True)
        content = {name: value for name, value in values.items() if value is not None}
        (config / "hyperparameters.json").write_text(json.dumps(content))
        return root

    return make


@pytest.fixture
def make_job(tmp_path: Path) -> JobFactory:
    """Return `job_factory` for a directory of the test's own."""
    return job_factory(tmp_path)


@contextlib.contextmanager
def mounted_disk(path: Path, size: int, *options: str) -> Iterator[Path]:
    """Mount a file system of `size` bytes at `path`."""
    path.mkdir(parents=True, exist_ok=True)
    settings = ",".join((f"size={size}", *options))
    subprocess.run(["mount", "-t", "tmpfs", "-o", settings, "tmpfs", str(path)], check=True, capture_output=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> SmallDisk:
    """Return `mounted_disk`; the test is skipped where no disk can be mounted."""
    try:
        with mounted_disk(tmp_path_factory.mktemp("mount"), 2**20):
            return mounted_disk
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: only root may ({error})")
