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
_MAX_MESSAGES = 1000  # errors of members that are stored
_PIECE = 2**16  # bytes per read
_HEADER_LIMIT = 2**17  # bytes of the name and attributes of a member, which tarfile reads in one call
_GZIP = b"\x1f\x8b"
_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)


@dataclasses.dataclass
class Content:
    """Content of an archive: requested files at the top level, such files in directories, and invalid members."""

    found: set[str] = dataclasses.field(default_factory=set)
    nested: list[str] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    last: str = ""


def unpack(path: Path, target: Path, limits: Mapping[str, int], total: int) -> Content | None:
    """Extract the files in `limits`, which maps names to maximum sizes in bytes, from the archive `path` to `target`.

    Returns None if `path` is not a tar archive, compressed or uncompressed. The archive is read to its end, because a
    checksum error can occur there. Raises ClientError that names the archive if it is corrupt, or if its content has
    more than `total` bytes.
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
                raise tarfile.ReadError(f"it is truncated after {content.last or 'its first bytes'}")
        except _DAMAGE as error:
            if content.last or path.name.lower().endswith(_SUFFIXES):
                reason = last_line(error) + ("" if content.last else ", before its first member")
                raise ClientError(
                    f"{path} cannot be extracted: {reason}. Copy the complete archive again, or remove it."
                ) from error
            return None
    return content


def _read_members(archive: tarfile.TarFile, target: Path, limits: Mapping[str, int], content: Content) -> None:
    """Read an archive once and write the requested files to `target`; no path from the archive is used."""
    for _ in range(_MEMBERS_LIMIT):
        member = archive.next()
        if member is None:
            return
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile retains all members in memory
        path = PurePosixPath(member.name)
        content.last = member.name
        fault = _fault(member, path, content.found, limits)
        if fault and len(content.faults) < _MAX_MESSAGES:
            content.faults.append(f"{member.name} {fault}")
        if len(path.parts) == 1 and path.name in limits:
            content.found.add(path.name)
            if not fault:
                _write(archive, member, target / path.name)
        elif path.name in limits and len(content.nested) < _MAX_MESSAGES:
            content.nested.append(member.name)
    raise tarfile.ReadError(f"it has more than {_MEMBERS_LIMIT} members")


def _fault(member: tarfile.TarInfo, path: PurePosixPath, found: set[str], limits: Mapping[str, int]) -> str:
    """Describe why a member is invalid; an empty string if it is valid."""
    if path.is_absolute() or ".." in path.parts:
        return "has a path outside the archive"
    if not member.isfile() and not member.isdir():
        return "is a link" if member.issym() or member.islnk() else "is neither a file nor a directory"
    if len(path.parts) != 1 or path.name not in limits:
        return ""
    if not member.isreg() or member.issparse():
        return "is not a regular file"
    if path.name in found:
        return "occurs twice"
    if member.size > limits[path.name]:
        return f"has {member.size} bytes, and the limit is {limits[path.name]}"
    return ""


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    assert source is not None  # it is a regular file
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _PIECE)


class _Forward:
    """Stream over an archive that reads only forward, in small chunks, and at most `total` bytes."""

    def __init__(self, stream: BinaryIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self.position = 0
        self.written = 0  # position after the last byte that is not 0

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_LIMIT:  # tarfile reads only names and attributes in one call
            raise tarfile.ReadError(f"the header of a member has {size} bytes")
        piece = self._stream.read(size)
        if content := piece.rstrip(b"\0"):
            self.written = self.position + len(content)
        self.position += len(piece)
        if self.position > self._total:
            raise tarfile.ReadError(f"the extracted content has more than {self._total} bytes")
        return piece

    def seek(self, position: int, whence: int = 0) -> int:
        if position < self.position:
            raise tarfile.ReadError("the members overlap")
        while self.position < position and self.read(min(_PIECE, position - self.position)):
            pass
        return self.position

    def seekable(self) -> bool:
        return True
