"""Fetching from a server on this machine that breaks off, lies, is gone, or stands behind a proxy."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import http.server
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.mx.weights import fetch, sources
from container.mx.weights.fetch import FetchError
from container.mx.weights.sources import BACKBONES, Source
from tests.conftest import PROGRAM

CONTENT = bytes(range(256)) * 4000  # a megabyte, in which every place is known
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclasses.dataclass
class Server:
    """What the server does; `asked` are the paths and ranges that it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    breaks_after: list[int] = dataclasses.field(default_factory=list)  # bytes sent per connection, then all
    ranges: bool = True
    chunked: bool = False
    etag: str = ""
    status: int = 200
    asked: list[tuple[str, str | None]] = dataclasses.field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append((handler.path, wanted))
        if self.status != 200:
            handler.send_error(self.status)
            return
        if self.etag and not handler.path.endswith("/stored"):
            handler.send_response(302)
            handler.send_header("Location", "/stored")
            handler.send_header("X-Linked-ETag", f'"{self.etag}"')
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0  # type: ignore[index]
        if start and start >= len(self.content):
            handler.send_error(416)
            return
        self._send(handler, start)

    def _send(self, handler: http.server.BaseHTTPRequestHandler, start: int) -> None:
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if not self.chunked:
            handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        count = self.breaks_after.pop(0) if self.breaks_after else len(self.content)
        handler.wfile.write(self.content[start : start + count])


@pytest.fixture
def server() -> Iterator[Server]:
    behavior = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behavior.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        behavior.url = f"http://127.0.0.1:{listening.server_port}"
        yield behavior
        listening.shutdown()


def source(server: Server, digest: str = f"sha256:{SHA256}") -> Source:
    return Source("weights.safetensors", f"{server.url}/weights", digest)


def test_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    path = fetch.fetch(source(server), tmp_path / "new")
    assert path == tmp_path / "new/weights.safetensors" and path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert fetch.fetch(source(server), tmp_path / "new") == path
    assert server.asked == [("/weights", None)]


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_interrupted_download_is_resumed(
    server: Server, tmp_path: Path, ranges: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    piece = fetch._PIECE
    server.breaks_after, server.ranges = [20 * piece + 1, 30 * piece], ranges
    assert fetch.fetch(source(server), tmp_path).read_bytes() == CONTENT
    starts = [None, f"bytes={20 * piece}-", f"bytes={(50 if ranges else 30) * piece}-"]
    assert [wanted for _, wanted in server.asked] == starts
    assert f"Resuming the download at {20 * piece} bytes" in capsys.readouterr().err


def test_next_run_resumes_the_download(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [25 * fetch._PIECE, 0]
    with pytest.raises(FetchError):
        fetch.fetch(source(server), tmp_path)
    assert (tmp_path / "weights.safetensors.part").stat().st_size == 25 * fetch._PIECE
    assert fetch.fetch(source(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("/weights", f"bytes={25 * fetch._PIECE}-")


@pytest.mark.parametrize("left", [b"another file's beginning", CONTENT[:-1] + b"?", CONTENT + b"more"])
def test_partial_download_of_another_file_is_replaced(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "weights.safetensors.part").write_bytes(left)
    assert fetch.fetch(source(server), tmp_path).read_bytes() == CONTENT
    (tmp_path / "weights.safetensors").write_bytes(left)
    assert fetch.fetch(source(server), tmp_path).read_bytes() == CONTENT


def test_complete_partial_file_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors.part").write_bytes(CONTENT)
    assert fetch.fetch(source(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/weights", f"bytes={len(CONTENT)}-")]


def test_file_with_another_hash_is_rejected_and_removed(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"?"
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(FetchError, match=f"the server sent another file: its SHA256 is {found} instead of {SHA256}"):
        fetch.fetch(source(server), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_hash_from_hugging_face_is_used_if_none_is_published(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.etag = SHA256
    fetch.fetch(source(server, ""), tmp_path)
    assert "Only the names and shapes" not in capsys.readouterr().err
    (tmp_path / "weights.safetensors").unlink()
    server.content = b"other bytes"
    with pytest.raises(FetchError, match=f"the server sent another file: .* instead of {SHA256}"):
        fetch.fetch(source(server, ""), tmp_path)
    server.etag = ""
    assert fetch.fetch(source(server, ""), tmp_path).read_bytes() == b"other bytes"
    assert "No hash of weights.safetensors is published. Only the names and shapes" in capsys.readouterr().err


def test_endless_and_missing_responses_fail(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("container.mx.weights.zipped.LARGEST", 600_000)
    server.chunked = True  # no length is stated
    with pytest.raises(FetchError, match="the server sends more than 600000 bytes"):
        fetch.fetch(source(server), tmp_path)
    assert list(tmp_path.iterdir()) == []
    for status, reason in (
        (404, "the server returned 404 Not Found"),
        (503, "the server returned 503 Service Unavailable"),
    ):
        server.status = status
        with pytest.raises(FetchError, match=reason):
            fetch.fetch(source(server), tmp_path)
    with pytest.raises(FetchError, match=r"ConnectionError: .*refused"):
        fetch.fetch(Source("weights.safetensors", "http://127.0.0.1:9/", ""), tmp_path)


def test_mirror_variable_replaces_every_url(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sources.MIRROR_VARIABLE, f"{server.url}/mirror/")
    assert [sources.address_of(each) for each in BACKBONES["resnet-101"].sources] == [
        f"{server.url}/mirror/resnetd101b-0461-fead1bcb.params.zip",
        f"{server.url}/mirror/resnet101s.gluon_in1k.safetensors",
        f"{server.url}/mirror/resnet101_v1s-bd93a83c.zip",
    ]
    monkeypatch.delenv(sources.MIRROR_VARIABLE)
    monkeypatch.setenv(sources.GLUON_STORE_VARIABLE, "http://store")
    assert [sources.address_of(each) for each in BACKBONES["resnet-18"].sources] == [
        "https://huggingface.co/timm/resnet18.gluon_in1k/resolve/main/model.safetensors",
        "http://store/gluon/models/resnet18_v1b-2d9d980c.zip",
    ]


def command(server: Server, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"PYTHONPATH": str(PROGRAM), sources.MIRROR_VARIABLE: server.url, **variables}
    return subprocess.run(
        [sys.executable, "-m", "container.mx.weights.fetch", *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_proxy_is_used(server: Server, tmp_path: Path) -> None:
    done = command(
        server,
        "resnet-34",
        "--directory",
        str(tmp_path),
        PRETRAINED_MIRROR="http://mirror.invalid",
        http_proxy=server.url,
    )
    assert done.returncode == 0, done.stderr
    assert server.asked == [("http://mirror.invalid/resnet34.gluon_in1k.safetensors", None)]
    assert (tmp_path / "resnet34.gluon_in1k.safetensors").read_bytes() == CONTENT


def test_command_fails_immediately_without_a_network(server: Server, tmp_path: Path) -> None:
    server.status = 404
    done = command(server, "resnet-50", "resnet-101", "--directory", str(tmp_path))
    assert done.returncode == 1
    assert "the ImageNet weights of resnet-50 could not be downloaded:" in done.stderr
    assert done.stderr.count(": the server returned 404 Not Found") == 3
    assert "resnetd50b-0549-17d6004b.params.zip" in done.stderr and "--from FILE" in done.stderr
    assert "Traceback" not in done.stderr


def test_existing_file_needs_no_source_but_must_be_valid(server: Server, tmp_path: Path) -> None:
    for name in ("resnet50_v1s", "resnet101_v1s"):
        (tmp_path / f"{name}-{hashlib.sha1(b'converted').hexdigest()[:8]}.params").write_bytes(b"converted")
    done = command(server, "resnet-50", "resnet-101", "--directory", str(tmp_path))
    assert (done.returncode, server.asked) == (0, []), done.stderr
    (tmp_path / "resnet50_v1s-25a187fa.params").write_bytes(b"cut")
    done = command(server, "resnet-50", "--directory", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"resnet-50: {tmp_path}/resnet50_v1s-25a187fa.params is corrupt: its SHA-1 is ")


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.cpu"])
def test_first_build_stage_copies_all_modules_of_the_download(dockerfile: str, tmp_path: Path) -> None:
    """It fetches before it installs anything, with those files alone that it copies."""
    stage = (PROGRAM / dockerfile).read_text().split("AS fetched\n")[1].split("\nFROM ")[0]
    for line in re.findall(r"^COPY (container/.*)$", stage, re.MULTILINE):
        *files, folder = line.split()
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(PROGRAM / file, tmp_path / folder)
    program = (
        "import sys\n"
        "for name in ('numpy', 'mxnet', 'gluoncv', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "import container.mx.weights.fetch\n"
        f"assert container.mx.weights.fetch.__file__.startswith({str(tmp_path)!r})\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_progress_is_shown_in_a_terminal(server: Server, tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    environment = {**os.environ, sources.MIRROR_VARIABLE: server.url}
    process = subprocess.Popen(
        [sys.executable, "-m", "container.mx.weights.fetch", "resnet-34", "--directory", str(tmp_path)],
        cwd=PROGRAM, env=environment, stdout=end, stderr=end,
    )  # fmt: skip
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the command is
        while piece := os.read(terminal, 65536):
            shown += piece
    assert process.wait(timeout=60) == 0, shown.decode()
    assert b"resnet34.gluon_in1k.safetensors.part:" in shown and b"1.02M" in shown
    assert b"MB/s" not in command(server, "resnet-34", "--directory", str(tmp_path / "quiet")).stderr.encode()
