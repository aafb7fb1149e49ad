"""The error boundary of a job: failure file and exit code."""

from __future__ import annotations

import errno
import functools
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from container.artifact import disk
from container.environment import Environment, base_dir
from container.errors import AlgorithmError, ClientError, JobError, PlatformError, fit, last_line, printable
from container.mx.gpu_errors import explain_gpu_error
from container.training.run import run
from container.training.shutdown import Shutdown, exit_at_once

LOG = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_MISUSE = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EBADF)  # no fault of a machine


def main(stop: threading.Event) -> int:
    """Run the job below SAGEMAKER_BASE_DIR and return the exit code: 0 completed, 1 failed. `stop` ends it early.

    A failure is explained in `output/failure`, message first; its details and traceback go to the log. A job that was
    stopped ends the process itself, because a normal exit waits for the computation of MXNet.
    """
    _log_to_stdout()
    root = base_dir()
    shutdown = Shutdown(stop)
    shutdown.watch()
    try:
        run(Environment.read(root), stop, functools.partial(_fail, root), shutdown)
        shutdown.code = 0
    except BaseException as error:
        shutdown.code = 1
        _fail(root, error)
    if stop.is_set():
        exit_at_once(shutdown.code)
    return shutdown.code


def _fail(root: Path, error: BaseException) -> None:
    """Write and log why the job has failed."""
    fault = _explain(error)
    _write_failure(root / "output" / "failure", fault.reason)
    _tell(fault, error)


def _tell(fault: JobError, error: BaseException) -> None:
    """Log the complete reason, which can be longer than the failure file allows, and the traceback."""
    LOG.error("%s", fault.reason)
    if str(fault) != fit(fault.message, fault.details, sys.maxsize):
        for line in (fault.message, *fault.details):
            LOG.error("%s", line)
    LOG.error("Traceback of the error:", exc_info=error)


def _explain(error: BaseException) -> JobError:
    """Return the failure as an error with its cause and fix; of a group, the first JobError."""
    try:
        leaves = list(_leaves(error))
        return next((leaf for leaf in leaves if isinstance(leaf, JobError)), None) or _classify(leaves[0])
    except Exception:  # an exception that cannot be looked at must not cost the failure file
        return AlgorithmError(type(error).__name__)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Take exception groups apart."""
    parts = getattr(error, "exceptions", None)  # Python 3.10 has no class for them
    if isinstance(parts, tuple) and parts and all(isinstance(part, BaseException) for part in parts):
        for part in parts:
            yield from _leaves(part)
    else:
        yield error


def _classify(error: BaseException) -> JobError:
    line = last_line(error)
    text = line if line.startswith(type(error).__name__) else f"{type(error).__name__}: {line}"
    if isinstance(error, KeyboardInterrupt):
        return ClientError(f"the job was interrupted from the keyboard: start it again. {text}")
    if (isinstance(error, OSError) and error.errno in _FULL) or "no space left on device" in text.lower():
        return PlatformError(f"{disk.LARGER}. {text}")
    if fault := explain_gpu_error(text):
        return fault
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "bad_alloc" in text:
        remedy = "decrease mini_batch_size (if it is larger than 1) or crop_size, or choose a larger instance"
        return ClientError(f"memory ran out: {remedy}. {text}")
    if isinstance(error, FileNotFoundError) and "/input/data/" in str(error.filename):
        return PlatformError(
            f"a file of a channel was removed during the job. Do not change the data while the job runs. {text}"
        )
    if isinstance(error, OSError) and error.errno and error.errno not in _MISUSE:
        return PlatformError(f"the system rejected access to a file or device. Check its permissions. {text}")
    return AlgorithmError(text)


def _write_failure(path: Path, reason: str) -> None:
    """Write the failure file; if the disk rejects even that, the log still contains the reason."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason, encoding="utf-8")
    except OSError as error:
        LOG.error("the failure file could not be written: %s", error)


class _OneLine(logging.Formatter):
    """Prefixes each message as the built-in does: `[12/16/2020 18:55:13 INFO 140663167997760] `, and keeps it one line.

    Text from file names and files cannot start a new line. Tracebacks keep their lines.
    """

    def __init__(self) -> None:
        super().__init__("[%(asctime)s %(levelname)s %(thread)d] %(message)s", "%m/%d/%Y %H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # the base class's name
        """Put the escaped message behind the prefix."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """Render a traceback; one that cannot be rendered must not cost the log line."""
        try:
            text = super().formatException(ei)  # type: ignore[arg-type]
        except Exception as error:
            return f"(its traceback cannot be shown: {type(error).__name__})"
        return "\n".join(map(printable, text.split("\n")))


def _log_to_stdout() -> None:
    """Log to stdout line by line; what its encoding lacks is escaped."""
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
