"""Free disk space, and errors of files that cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from container.errors import PlatformError

_BLOCK = 4096  # a file occupies complete blocks
_FULL = 16 * _BLOCK

FULL = "the disk is full"
LARGER = f"{FULL}: use a larger volume (volume_size)"

_REMEDIES = {
    errno.ENOSPC: LARGER,
    errno.EDQUOT: "the disk quota is exceeded: increase it, or use a larger volume (volume_size)",
    errno.EROFS: "the file system is read-only: mount it writable",
    errno.EACCES: "permission is denied: allow the user of the job to write there",
    errno.EPERM: "permission is denied: allow the user of the job to write there",
    errno.EIO: "the disk reports an error: run the job again on another instance",
}


def free_bytes(path: Path) -> int | None:
    """Return the free bytes of the file system of `path`, which need not exist; None if they are not known."""
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
    """Return whether two paths, which need not exist, are on the same file system."""
    devices = {next(each.stat().st_dev for each in (path, *path.parents) if each.exists()) for path in (one, other)}
    return len(devices) == 1


def check_space(path: Path, needed: int) -> None:
    """Raise PlatformError if the file system of `path` does not have `needed` bytes free."""
    free = free_bytes(path)
    if needed and free is not None and free < needed + _BLOCK:
        raise PlatformError(
            f"{_REMEDIES[errno.ENOSPC]}. {path} cannot be written: it needs {needed} bytes, and {free} are free"
        )


def is_full(path: Path) -> bool:
    """Return whether the file system of `path`, which need not exist, has almost no free space."""
    free = free_bytes(path)
    return free is not None and free < _FULL


def write_failure(path: Path, needed: int, error: OSError, full: bool) -> PlatformError:
    """Return the error for a file that could not be written: fix, path, cause, bytes needed (0: unknown), bytes free.

    `full` is whether the disk was full at the failure, because not every such error has the number ENOSPC.
    """
    free = free_bytes(path)
    number = errno.ENOSPC if full and error.errno is None else error.errno
    remedy = f"{_REMEDIES[number]}. " if number in _REMEDIES else ""
    need = f"The file needs {needed} bytes" if needed else "The size of the file is not known"
    room = "the free disk space is not known" if free is None else f"{free} bytes are free"
    return PlatformError(f"{remedy}{path} could not be written: {error}. {need}, and {room}.")


def sync(path: Path) -> None:
    """Write a file, or the entries of a directory, to the disk before returning."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems cannot sync a directory
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)
