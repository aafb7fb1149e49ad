"""The command that fetches ImageNet weights, against a model store on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gluoncv.model_zoo import model_store

from container.mx import pretrained

CONTENT = b"weights"
SHA1 = hashlib.sha1(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model store whose only model is `resnet50_v1s`, with CONTENT for weights."""
    monkeypatch.setitem(model_store._model_sha1, "resnet50_v1s", SHA1)
    models = tmp_path / "store/gluon/models"
    models.mkdir(parents=True)
    with zipfile.ZipFile(models / f"resnet50_v1s-{SHA1[:8]}.zip", "w") as archive:
        archive.writestr(f"resnet50_v1s-{SHA1[:8]}.params", CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "store"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MXNET_GLUON_REPO", f"http://127.0.0.1:{server.server_port}/")
        yield models
        server.shutdown()


def fetch(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    monkeypatch.setattr("sys.argv", ["pretrained", "resnet-50", "--directory", str(target)])
    pretrained.main()


def test_weights_are_fetched_and_then_found(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(monkeypatch, tmp_path / "weights")
    expected = tmp_path / f"weights/resnet50_v1s-{SHA1[:8]}.params"
    assert capsys.readouterr().out.splitlines()[-1] == str(expected)
    assert expected.read_bytes() == CONTENT
    monkeypatch.setenv("PRETRAINED_DIR", str(tmp_path / "weights"))
    assert pretrained.find_pretrained("resnet-50") == expected


def test_other_content_is_refused(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(store / f"resnet50_v1s-{SHA1[:8]}.zip", "w") as archive:
        archive.writestr(f"resnet50_v1s-{SHA1[:8]}.params", b"other")
    with pytest.raises(
        SystemExit, match=r"resnet-50 could not be fetched: .*hash.*MXNET_GLUON_REPO names another store"
    ):
        fetch(monkeypatch, tmp_path / "weights")


def test_a_store_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXNET_GLUON_REPO", "http://127.0.0.1:9/")
    with pytest.raises(SystemExit, match=r"resnet-50 could not be fetched: .*MXNET_GLUON_REPO names another store"):
        fetch(monkeypatch, tmp_path / "weights")
