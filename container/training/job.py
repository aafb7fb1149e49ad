"""A training job's guard: the one place that turns an exception into a failure file and an exit code."""

from __future__ import annotations

import errno
import logging
import sys
import threading
import time
import traceback
from pathlib import Path

from container.environment import Environment, base_dir
from container.errors import AlgorithmError, ClientError, JobError, PlatformError
from container.training.run import run

LOG = logging.getLogger(__name__)

_REASON_LENGTH = 1024  # characters of the failure file that become the job's FailureReason


def main(stop: threading.Event) -> int:
    """Run the job below SAGEMAKER_BASE_DIR and return the exit code: 0 completed, 1 failed. `stop` ends it early.

    A failure is explained in `output/failure`, message first; its traceback goes to the log.
    """
    _log_to_stdout()
    root = base_dir()
    try:
        run(Environment.read(root), stop)
    except BaseException as error:
        reason = _explain(error)
        LOG.error("%s\n%s", reason, "".join(traceback.format_exception(error)).rstrip())
        _write_failure(root / "output" / "failure", reason)
        return 1
    return 0


def _explain(error: BaseException) -> str:
    """Return the failure's reason, by whose fault it is, with what to do first."""
    if not isinstance(error, JobError):
        error = _classify(error)
    return f"{type(error).__name__}: {error}"


def _classify(error: BaseException) -> JobError:
    text = f"{type(error).__name__}: {error}".strip()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PlatformError(f"the disk is full: give the job a larger volume (volume_size). {text}")
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return ClientError(f"memory ran out: lower mini_batch_size or crop_size, or take a larger instance. {text}")
    return AlgorithmError(text)


def _write_failure(path: Path, reason: str) -> None:
    """Write the failure file; a disk that refuses even that must not hide the reason, which is in the log."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason[:_REASON_LENGTH])
    except OSError as error:
        LOG.error("the failure file could not be written: %s", error)


def _log_to_stdout() -> None:
    """Log to stdout line by line, each with the built-in's prefix: `[12/16/2020 18:55:13 INFO 140663167997760] `."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter("[%(asctime)s %(levelname)s %(thread)d] %(message)s", "%m/%d/%Y %H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
