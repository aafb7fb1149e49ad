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

LARGEST = 2**30  # bytes; the largest published model has 260 MB
ZIP_MAGIC = b"PK\x03\x04"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the weights in `path`; a zip with one `.params` file is extracted.

    Raises ClientError that names the file if it is larger than `LARGEST`, or a zip with other content.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise ClientError(f"{path} has {size} bytes. The limit of a weight file is {LARGEST} bytes.")
    with path.open("rb") as file, tempfile.TemporaryFile() as unpacked:
        zipped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        file.seek(0)
        if zipped:
            _unpack(path, file, unpacked)
            unpacked.seek(0)
        yield unpacked if zipped else file


def digest(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of the weights in `path`, extracted from a zip."""
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
                raise ClientError(f"{path} is a zip with {len(found)} .params files. It must contain one.")
            if found[0].file_size > LARGEST:
                raise ClientError(
                    f"{path} contains {found[0].file_size} bytes. The limit of a weight file is {LARGEST} bytes."
                )
            with archive.open(found[0]) as member:
                shutil.copyfileobj(member, target, 2**20)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise ClientError(f"{path} is a corrupt zip: {error}. Download it again.") from error


def _is_params(name: str) -> bool:
    return name.endswith(".params") and not Path(name).name.startswith(".")
