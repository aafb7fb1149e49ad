"""Bounded reading of a weight file, or of the only file in a zip."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from container.errors import ClientError

LARGEST = 2**30  # bytes; the largest network published has 260 MB
ZIP_MAGIC = b"PK\x03\x04"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the weights in `path` at their beginning, unpacked when it is a zip with one `.params`.

    Raises ClientError that names the file when it is larger than a weight file can be, or a zip of another kind.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise ClientError(f"{path} has {size} bytes, more than a weight file can have ({LARGEST})")
    with path.open("rb") as file, tempfile.TemporaryFile() as unpacked:
        zipped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        file.seek(0)
        if zipped:
            _unpack(path, file, unpacked)
            unpacked.seek(0)
        yield unpacked if zipped else file


def digest(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of the weights in `path`, unpacked."""
    with opened(path) as file:
        hashed = hashlib.new(algorithm)
        while piece := file.read(2**20):
            hashed.update(piece)
        return hashed.hexdigest()


def _unpack(path: Path, file: IO[bytes], target: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            found = [member for member in archive.infolist() if _is_params(member.filename)]
            if len(found) != 1:
                raise ClientError(f"{path} is a zip with {len(found)} .params files: it must hold one")
            if found[0].file_size > LARGEST:
                raise ClientError(
                    f"{path} unpacks to {found[0].file_size} bytes, more than a weight file can have ({LARGEST})"
                )
            with archive.open(found[0]) as member:
                shutil.copyfileobj(member, target, 2**20)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise ClientError(f"{path} is a damaged zip: {error}; fetch it again") from error


def _is_params(name: str) -> bool:
    return name.endswith(".params") and not Path(name).name.startswith(".")
