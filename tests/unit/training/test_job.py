"""Failures: the file that becomes the job's FailureReason, and the exit code."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container.errors import ClientError, PlatformError
from container.training import job
from tests.conftest import JobFactory


@pytest.fixture(autouse=True)
def _undo_what_a_process_sets() -> Iterator[None]:
    handlers, on_sigterm = logging.root.handlers[:], signal.getsignal(signal.SIGTERM)
    yield
    logging.root.handlers[:] = handlers
    signal.signal(signal.SIGTERM, on_sigterm)


@pytest.fixture
def fail_with(make_job: JobFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], str]:
    """Return a function that runs a job which ends in an exception, and returns its failure file."""
    root = make_job()
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(root))

    def fail(error: BaseException) -> str:
        def run(*arguments: object) -> None:
            raise error

        monkeypatch.setattr(job, "run", run)
        assert job.main(threading.Event()) == 1
        return (root / "output/failure").read_bytes().decode()

    return fail


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Hostile(Exception):
    @property
    def exceptions(self) -> None:
        raise RuntimeError("not to be looked at")

    def __str__(self) -> str:
        return None  # type: ignore[return-value]


def chain(length: int) -> BaseException:
    error: BaseException = ValueError("the first")
    for _ in range(length):
        following = ValueError("the last")
        following.__cause__ = error
        error = following
    return error


def deep() -> BaseException:
    try:
        return deep()
    except RecursionError as error:
        return error


MXNET = 'Traceback (most recent call last):\n  File "../src/x.cc", line 1\nMXNetError: '


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClientError("channel train is missing"), "ClientError: channel train is missing"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "PlatformError: the disk is full: use a larger volume",
        ),
        (RuntimeError(MXNET + "fwrite: No space left on device"), "PlatformError: the disk is full"),
        (
            OSError(errno.EIO, "Input/output error", "/opt/ml/input/data/train/1.jpg"),
            "PlatformError: the system rejected access to a file or device. Check its permissions. "
            "OSError: [Errno 5] Input/output error: '/opt/ml/input/data/train/1.jpg'",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/opt/ml/model"), "PlatformError: the system rejected"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/opt/ml/input/data/train/1.jpg"),
            "PlatformError: a file of a channel was removed during the job. Do not change the data",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), "AlgorithmError: FileNotFoundError: [Errno 2] No such"),
        (MemoryError(), "ClientError: memory ran out: decrease mini_batch_size (if it is larger than 1) or crop_size"),
        (MemoryError("std::bad_alloc"), "ClientError: memory ran out: decrease mini_batch_size (if it is larger than"),
        (RuntimeError("cudaMalloc failed: out of memory"), "ClientError: The GPU memory ran out. Decrease"),
        (RuntimeError(MXNET + "CUDA: uncorrectable ECC error encountered"), "PlatformError: The GPU or its driver is"),
        (KeyError("surprise"), "AlgorithmError: KeyError: 'surprise'"),
        (RuntimeError(MXNET + "Check failed: 1 == 2"), "AlgorithmError: RuntimeError: MXNetError: Check failed: 1"),
        (ClientError("x" * 5000), "ClientError: " + "x" * 1008 + "…"),
        (Mute(), "AlgorithmError: Mute"),
        (Hostile(), "AlgorithmError: Hostile"),
        (ClientError(Path("/a path"), [7]), "ClientError: /a path: 7"),  # type: ignore[arg-type,list-item]
        (chain(200), "AlgorithmError: ValueError: the last"),
        (KeyboardInterrupt(), "ClientError: the job was interrupted from the keyboard"),
        (SystemExit("import failed"), "AlgorithmError: SystemExit: import failed"),
        (RecursionError("maximum recursion depth exceeded"), "AlgorithmError: RecursionError: maximum recursion depth"),
        (deep(), "AlgorithmError: RecursionError: maximum recursion depth"),
        (ValueError("a\nb"), "AlgorithmError: ValueError: b"),
    ],
)
def test_a_failure_is_laid_at_the_right_door(
    fail_with: Callable[[BaseException], str], capsys: pytest.CaptureFixture[str], error: BaseException, reason: str
) -> None:
    written = fail_with(error)
    assert written.startswith(reason)
    assert len(written.encode()) <= 1024
    log = capsys.readouterr().out.splitlines()
    assert log[0].endswith(written)
    assert "Traceback (most recent call last):" in log


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no exception groups")
def test_a_group_is_laid_at_the_door_of_the_first_that_knows(fail_with: Callable[[BaseException], str]) -> None:
    group = vars(importlib.import_module("builtins"))["ExceptionGroup"]
    inner = group("inner", [OSError(5, "io"), PlatformError("the pipe is shut")])
    assert fail_with(group("outer", [KeyError("x"), inner])) == "PlatformError: the pipe is shut"
    assert fail_with(group("outer", [KeyError("x"), ValueError("y")])) == "AlgorithmError: KeyError: 'x'"


def test_what_the_failure_file_has_no_room_for_is_in_the_log(
    fail_with: Callable[[BaseException], str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{number:08d}.jpg has no annotation" for number in range(200)]
    written = fail_with(ClientError("images lack annotations; add them", names))
    assert written.startswith(f"ClientError: images lack annotations; add them: {names[0]}; {names[1]}; ")
    shown = written.count(".jpg")
    assert written.endswith(f"; {names[shown - 1]}; and {200 - shown} more")
    log = capsys.readouterr().out
    assert [line for line in names if not re.search(rf" ERROR \d+\] {line}$", log, re.MULTILINE)] == []


def test_what_fits_is_not_logged_twice(
    fail_with: Callable[[BaseException], str], capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(ClientError("rename", ["one.jpg"]))
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith("] one.jpg")] == []


def test_names_that_are_no_text_cost_neither_the_failure_file_nor_the_log(
    fail_with: Callable[[BaseException], str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"stra\xdfe\n[12/16/2020 18:55:13 INFO 1] #quality_metric\x1b[2J.jpg")
    shown = r"stra\xdfe\n[12/16/2020 18:55:13 INFO 1] #quality_metric\x1b[2J.jpg"
    with open(os.dup(1), "w", encoding="ascii") as narrow:
        monkeypatch.setattr(sys, "stdout", narrow)
        assert fail_with(ClientError("Größe: rename it", [name])) == f"ClientError: Größe: rename it: {shown}"
        assert fail_with(ValueError(name)).startswith("AlgorithmError: ValueError: [12/16")
        logging.getLogger("any").warning("%s is passed over", name)
    log = capfd.readouterr().out
    assert log.splitlines()[0].endswith(rf"ClientError: Gr\xf6\xdfe: rename it: {shown}")
    assert log.splitlines()[-1].endswith(f"] {shown} is passed over")
    assert "\x1b" not in log


def test_a_failure_file_that_cannot_be_written_leaves_the_reason_in_the_log(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_job(num_classes="1")
    (root / "output").write_text("no directory")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(root))
    assert job.main(threading.Event()) == 1
    log = capsys.readouterr().out
    assert "the failure file could not be written" in log
    assert "ClientError: 1 hyperparameter is not valid: num_classes must be" in log


def test_a_root_without_a_job_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "nothing"))
    assert job.main(threading.Event()) == 1
    written = (tmp_path / "nothing/output/failure").read_text()
    assert written.startswith(
        f"ClientError: {tmp_path}/nothing/input/config/hyperparameters.json does not exist. Mount"
    )


def test_a_file_name_that_is_not_utf8_is_shown_escaped(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_job()
    folder = os.fsencode(root / "input/data/train")
    os.rename(folder + b"/train-0.jpg", folder + b"/stra\xdfe.jpg")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(root))
    assert job.main(threading.Event()) == 1
    written = (root / "output/failure").read_bytes().decode()
    assert written.startswith("ClientError: ") and r"stra\xdfe.jpg" in written
    assert written in capsys.readouterr().out


def test_the_remedy_comes_before_names_and_the_log_has_every_name(
    make_job: JobFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_job(train=25, validation=25)
    data = root / "input/data"
    for channel in ("train", "validation"):  # as Cityscapes names them
        for number in range(25):
            image, annotation = data / channel, data / f"{channel}_annotation"
            stem = f"aachen_{number:06d}_000019"
            (image / f"{channel}-{number}.jpg").rename(image / f"{stem}_leftImg8bit.jpg")
            (annotation / f"{channel}-{number}.png").rename(annotation / f"{stem}_gtFine_labelIds.png")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(root))
    assert job.main(threading.Event()) == 1
    written = (root / "output/failure").read_bytes().decode()
    assert len(written.encode()) <= 1024 and written.startswith("ClientError: ")
    assert 0 < written.index("Rename") < written.index("_leftImg8bit.jpg")
    assert re.search(r"; and \d+ more$", written)
    log = capsys.readouterr().out
    assert all(log.count(f"train/aachen_{number:06d}_000019_leftImg8bit.jpg") for number in range(25))
