"""What goes wrong beneath a server: a directory without room, a disk that is slow. Only root can make them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_SLOW_BYTES = 40_000_000  # a second
_DISK_BYTES = 2**30


@contextlib.contextmanager
def full_directory(folder: Path) -> Iterator[Path]:
    """A directory for temporary files with room for nothing, for root; for others an ordinary one."""
    folder.mkdir()
    if not _tried("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)):
        print("not root: the directory for temporary files is not full")
        yield folder
        return
    try:
        with contextlib.suppress(OSError), (folder / "full").open("wb") as file:
            file.write(bytes(2**17))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def on_slow_disk(source: Path, folder: Path) -> Iterator[tuple[Path, Callable[[list[int]], None]]]:
    """A copy of a directory on a disk of its own, and what makes it slow for some processes; for root.

    The disk gives them 40 MB a second, and what has been read once is read again: no cache keeps it.
    """
    image, mounted, done = folder.with_suffix(".ext4"), False, threading.Event()
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(_DISK_BYTES)
    mounted = _tried("mkfs.ext4", "-q", str(image)) and _tried("mount", "-o", "loop", str(image), str(folder))
    copy = folder / source.name
    try:
        shutil.copytree(source, copy)
        files = [os.open(path, os.O_RDONLY) for path in copy.iterdir()]

        def forget() -> None:
            while not done.wait(0.5):
                for file in files:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

        def slow_down(processes: list[int]) -> None:
            if not mounted or not _limit(folder, processes):
                print("not root: no disk is slow")
                return
            os.sync()
            threading.Thread(target=forget, daemon=True).start()

        yield copy, slow_down
    finally:
        done.set()
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _limit(folder: Path, processes: list[int]) -> bool:
    """Let processes, and those that they start, read little a second from the disk that `folder` is."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    if (_CGROUPS / "blkio").is_dir():
        cgroup, rule = _CGROUPS / "blkio" / "soak", ("blkio.throttle.read_bps_device", f"{number} {_SLOW_BYTES}")
    else:
        cgroup, rule = _CGROUPS / "soak", ("io.max", f"{number} rbps={_SLOW_BYTES}")
    try:
        cgroup.mkdir(exist_ok=True)
        (cgroup / rule[0]).write_text(rule[1])
        for process in processes:
            (cgroup / "cgroup.procs").write_text(str(process))
    except OSError as error:
        print(f"{cgroup}: {error}")
        return False
    return True


def _tried(*command: str) -> bool:
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
