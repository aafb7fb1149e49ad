"""Free disk space, and errors of files that cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from container.errors import PlatformError

_BLOCK = 4096  # a file takes whole blocks
_FULL = 16 * _BLOCK

FULL = "the disk is full"
LARGER = f"{FULL}: give the job a larger volume (volume_size)"

_REMEDIES = {
    errno.ENOSPC: LARGER,
    errno.EDQUOT: "the disk quota is used up: raise it, or give the job a larger volume (volume_size)",
    errno.EROFS: "the file system is read-only: mount it writable",
    errno.EACCES: "permission is denied: let the job's user write there",
    errno.EPERM: "permission is denied: let the job's user write there",
    errno.EIO: "the disk reports an error: run the job again, on another instance",
}


def free_bytes(path: Path) -> int | None:
    """Return how many bytes fit where `path` is or would be; None when its file system does not say."""
    for place in (path, *path.parents):
        try:
            status = os.statvfs(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
        return status.f_bavail * status.f_frsize if status.f_blocks else None
    return None


def is_same(one: Path, other: Path) -> bool:
    """Tell whether two paths, as they are or would be, share one file system."""
    devices = {next(each.stat().st_dev for each in (path, *path.parents) if each.exists()) for path in (one, other)}
    return len(devices) == 1


def check_space(path: Path, needed: int) -> None:
    """Raise PlatformError when the `needed` bytes do not fit where `path` is to be."""
    free = free_bytes(path)
    if needed and free is not None and free < needed + _BLOCK:
        raise PlatformError(
            f"{_REMEDIES[errno.ENOSPC]}. {path} cannot be written: it needs {needed} bytes, {free} are free"
        )


def is_full(path: Path) -> bool:
    """Tell whether next to nothing fits where `path` is or would be."""
    free = free_bytes(path)
    return free is not None and free < _FULL


def write_failure(path: Path, needed: int, error: OSError, full: bool) -> PlatformError:
    """Explain why `path` could not be written: remedy, path, cause, bytes needed (0: unknown) and free now.

    `full` says that the disk was when it failed: not every error has that as its number.
    """
    free = free_bytes(path)
    number = errno.ENOSPC if full and error.errno is None else error.errno
    remedy = f"{_REMEDIES[number]}. " if number in _REMEDIES else ""
    need = f"it needs {needed} bytes" if needed else "how much it needs is not known"
    room = "how many are free is not known" if free is None else f"{free} are free"
    return PlatformError(f"{remedy}{path} could not be written: {error}; {need}, {room}")


def sync(path: Path) -> None:
    """Have the disk hold a file, or a directory's entries, before this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some file systems sync no directory
            raise
    finally:
        os.close(descriptor)
