"""Safe extraction of tar archives."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from container.errors import ClientError, last_line

_MEMBERS_LIMIT = 10_000
_TOLD = 1000  # faults of members that are kept
_PIECE = 2**16  # bytes read at once
_HEADER_LIMIT = 2**17  # bytes of a member's name and attributes, which tarfile reads at once
_GZIP = b"\x1f\x8b"
_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)


@dataclasses.dataclass
class Content:
    """What an archive holds: wanted files at its top, such files elsewhere, and what must not be in one."""

    found: set[str] = dataclasses.field(default_factory=set)
    nested: list[str] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    last: str = ""


def unpack(path: Path, target: Path, limits: Mapping[str, int], total: int) -> Content | None:
    """Unpack the files named in `limits`, each of at most so many bytes, from the archive `path` into `target`.

    Returns None when `path` is no tar archive, compressed or not. An archive is read to its end: only there does damage
    show. Raises ClientError that names it when it is damaged, or unpacks to more than `total` bytes.
    """
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        stream = _Forward(cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file, total)
        content = Content()
        try:
            archive = tarfile.TarFile(fileobj=cast(BinaryIO, stream))
            _read_members(archive, target, limits, content)
            stream.seek(total + 1)
            if stream.written > archive.offset or stream.position < archive.offset + tarfile.BLOCKSIZE:
                raise tarfile.ReadError(f"it breaks off after {content.last or 'nothing'}")
        except _DAMAGE as error:
            if content.last or path.name.lower().endswith(_SUFFIXES):
                reason = last_line(error) + ("" if content.last else ", before its first member")
                raise ClientError(
                    f"{path} cannot be unpacked: {reason}; copy it anew and whole, or remove it"
                ) from error
            return None
    return content


def _read_members(archive: tarfile.TarFile, target: Path, limits: Mapping[str, int], content: Content) -> None:
    """Go through an archive once, and write what is wanted into `target`: nothing that it says is taken for a path."""
    for _ in range(_MEMBERS_LIMIT):
        member = archive.next()
        if member is None:
            return
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        path = PurePosixPath(member.name)
        content.last = member.name
        fault = _fault(member, path, content.found, limits)
        if fault and len(content.faults) < _TOLD:
            content.faults.append(f"{member.name} {fault}")
        if len(path.parts) == 1 and path.name in limits:
            content.found.add(path.name)
            if not fault:
                _write(archive, member, target / path.name)
        elif path.name in limits and len(content.nested) < _TOLD:
            content.nested.append(member.name)
    raise tarfile.ReadError(f"it has more than {_MEMBERS_LIMIT} members")


def _fault(member: tarfile.TarInfo, path: PurePosixPath, found: set[str], limits: Mapping[str, int]) -> str:
    """Say what is wrong with a member; an empty text when nothing is."""
    if path.is_absolute() or ".." in path.parts:
        return "leads out of it"
    if not member.isfile() and not member.isdir():
        return "is a link" if member.issym() or member.islnk() else "is neither a file nor a folder"
    if len(path.parts) != 1 or path.name not in limits:
        return ""
    if not member.isreg() or member.issparse():
        return "is not a plain file"
    if path.name in found:
        return "is in it twice"
    if member.size > limits[path.name]:
        return f"has {member.size} bytes, of which at most {limits[path.name]} are taken"
    return ""


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    assert source is not None  # it is a plain file
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _PIECE)


class _Forward:
    """What an archive is read from: forward only, little at once, and never more than an archive may hold."""

    def __init__(self, stream: BinaryIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self.position = 0
        self.written = 0  # where the last byte that is not 0 ends

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_LIMIT:  # only names and attributes are read at once
            raise tarfile.ReadError(f"a member's header has {size} bytes")
        piece = self._stream.read(size)
        if content := piece.rstrip(b"\0"):
            self.written = self.position + len(content)
        self.position += len(piece)
        if self.position > self._total:
            raise tarfile.ReadError(f"it unpacks to more than {self._total} bytes")
        return piece

    def seek(self, position: int, whence: int = 0) -> int:
        if position < self.position:
            raise tarfile.ReadError("its members overlap")
        while self.position < position and self.read(min(_PIECE, position - self.position)):
            pass
        return self.position

    def seekable(self) -> bool:
        return True
