"""ImageNet weights: the same ones from three containers, for every backbone; found, converted, fetched, refused."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import resnetv1b

from container.environment import Channel, Environment
from container.errors import ClientError
from container.hyperparameters import load
from container.mx import pretrained
from container.mx.networks.segmentation import SegmentationNetwork, assign_weights, initialize_weights
from container.mx.weights import sources
from container.mx.weights.initial_network import create_initial_network
from tests.mx.published import GLUONCV, Weights, random_weights, write_gluoncv, write_imgclsmob, write_timm


def write_zip(path: Path, weights: Weights) -> None:
    """Write as imgclsmob publishes: the .params in a zip, under its own name."""
    write_imgclsmob(path.with_suffix(".inner"), weights)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=0) as archive:
        archive.write(path.with_suffix(".inner"), "weights.params")
    path.with_suffix(".inner").unlink()


def load_pretrained(network: SegmentationNetwork, backbone: str, path: Path) -> Weights:
    loaded = pretrained.read_pretrained(path, backbone)
    assign_weights(network, loaded)
    return loaded


WRITERS: dict[str, Callable[[Path, Weights], None]] = {
    "gluoncv": write_gluoncv, "imgclsmob": write_imgclsmob, "timm": write_timm
}  # fmt: skip


@pytest.fixture(scope="module", params=list(GLUONCV))
def backbone(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(backbone: str) -> SegmentationNetwork:
    network = SegmentationNetwork("fcn", backbone, 2)
    initialize_weights(network)
    return network


@pytest.mark.parametrize("writer", list(WRITERS))
def test_every_file_format_sets_all_weights(
    network: SegmentationNetwork, backbone: str, writer: str, tmp_path: Path
) -> None:
    weights = random_weights(backbone, seed=len(writer))
    path = tmp_path / "brought.bin"  # the name says nothing: content tells
    WRITERS[writer](path, weights)
    loaded = load_pretrained(network, backbone, path)
    encoder = {name for name in weights if not name.startswith("fc.")}
    assert set(loaded) == encoder and len(encoder) == {18: 100, 34: 180, 50: 275, 101: 530}[int(backbone[7:])]
    for name, parameter in network._collect_params_with_prefix().items():
        if not name.startswith(("head.", "auxlayer.")):
            assert np.array_equal(parameter.data().asnumpy(), weights[name]), name


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights("resnet-18")


@pytest.fixture(scope="module")
def small() -> SegmentationNetwork:
    network = SegmentationNetwork("fcn", "resnet-18", 2)
    initialize_weights(network)
    return network


def test_published_zip_is_read(small: SegmentationNetwork, weights: Weights, tmp_path: Path) -> None:
    write_zip(tmp_path / "weights", weights)
    load_pretrained(small, "resnet-18", tmp_path / "weights")
    assert np.array_equal(small.bn1.running_var.data().asnumpy(), weights["bn1.running_var"])


def test_log_contains_the_source_of_the_weights(
    weights: Weights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pretrained").mkdir()
    path = tmp_path / "pretrained/own.safetensors"
    write_timm(path, {name: array for name, array in weights.items() if not name.startswith("fc.")})
    with caplog.at_level("INFO"):
        create_initial_network(
            environment(tmp_path, pretrained="File"), load({"num_classes": 2, "backbone": "resnet-18"}), [mx.cpu()]
        )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert caplog.messages == [f"Loaded the initial weights of the backbone from {path} (SHA-256 {sha256})"]


def refusal(network: SegmentationNetwork, path: Path) -> str:
    with pytest.raises(ClientError) as caught:
        load_pretrained(network, "resnet-18", path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_mismatch_is_one_error_with_the_first_differences(
    small: SegmentationNetwork, weights: Weights, tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    changed = {name: array for name, array in weights.items() if name != "bn1.beta"}
    changed |= {"conv1.weight": np.zeros((64, 3, 3, 3), np.float32), "layer5.weight": np.zeros(1, np.float32)}
    write_gluoncv(path, changed)
    assert refusal(small, path) == (
        f"{path} does not contain the weights of resnet-18: bn1.beta is missing; layer5.weight is not expected; "
        "conv1.weight has the shape (64, 3, 3, 3) instead of (64, 3, 7, 7)"
    )
    write_timm(path, random_weights("resnet-34"))
    assert "layer1.2.bn1.running_mean is not expected; " in refusal(small, path)
    assert "; and 77 more differences" in refusal(small, path)  # 80 names more than resnet-18's
    write_gluoncv(path, weights | {"head.block.4.bias": np.zeros(2, np.float32)})
    assert refusal(small, path).endswith(". Use the model channel for a complete model")
    write_gluoncv(path, weights | {"features.0.conv.bn.beta": weights["bn1.beta"]})
    assert "it has two arrays for bn1.beta" in refusal(small, path)


def test_invalid_weights_are_rejected(small: SegmentationNetwork, weights: Weights, tmp_path: Path) -> None:
    for name, value, reason in (
        ("layer1.0.bn1.beta", np.nan, "layer1.0.bn1.beta contains numbers that are not finite"),
        ("layer1.0.bn1.running_var", -1, "layer1.0.bn1.running_var contains negative variances"),
    ):
        write_timm(tmp_path / "weights", weights | {name: np.full(64, value, np.float32)})
        assert reason in refusal(small, tmp_path / "weights").replace(".bias", ".beta")


def test_published_name_with_other_content_is_rejected(
    small: SegmentationNetwork, weights: Weights, tmp_path: Path
) -> None:
    path = tmp_path / "resnet18_v1b-2d9d980c.params"
    write_gluoncv(path, weights)
    sha1 = hashlib.sha1(path.read_bytes()).hexdigest()
    assert f"its SHA1 is {sha1} instead of 2d9d980c990442f826f20781ed039851e78dabe3" in refusal(small, path)


def environment(root: Path, **channels: str) -> Environment:
    given = {name: Channel(name, root / name, input_mode=mode) for name, mode in channels.items()}
    return Environment(root, {}, given, "algo-1", ("algo-1",))


def test_channel_has_precedence_and_contains_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Weights
) -> None:
    monkeypatch.setenv("PRETRAINED_DIR", str(tmp_path / "image"))
    write_gluoncv(tmp_path / "raw", weights)
    baked = pretrained.convert(tmp_path / "raw", "resnet-18", tmp_path / "image")
    assert pretrained.find_pretrained(environment(tmp_path), "resnet-18") == baked
    job = environment(tmp_path, pretrained="File")
    (tmp_path / "pretrained/nested").mkdir(parents=True)
    with pytest.raises(
        ClientError, match=r"channel pretrained contains no files\. It must contain one weight file for resnet-18"
    ):
        pretrained.find_pretrained(job, "resnet-18")
    for name in (".DS_Store", "nested/own"):
        (tmp_path / "pretrained" / name).touch()
    assert pretrained.find_pretrained(job, "resnet-18") == tmp_path / "pretrained/nested/own"
    (tmp_path / "pretrained/other").touch()
    with pytest.raises(ClientError, match=r"contains own, other\. It must"):
        pretrained.find_pretrained(job, "resnet-18")


def test_missing_weights_error_lists_all_fixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETRAINED_DIR", str(tmp_path))
    with pytest.raises(ClientError) as caught:
        pretrained.find_pretrained(environment(tmp_path), "resnet-50")
    message = str(caught.value)
    assert message.startswith("No ImageNet weights found for backbone resnet-50: ")
    for part in (
        "/osmr/imgclsmob/releases/download/v0.0.296/resnetd50b-0549-17d6004b.params.zip",
        "/timm/resnet50s.gluon_in1k/resolve/main/model.safetensors",
        "use_pretrained_model=False",
        "PRETRAINED=resnet-50",
        f"{tmp_path} contains no resnet50_v1s-*.params",
    ):
        assert part in message
    assert len(message) < 1000  # the platform keeps 1024 characters of a failure


def convert(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["pretrained", *arguments])
    pretrained.main()


def test_local_file_is_converted_to_the_gluoncv_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weights: Weights
) -> None:
    write_timm(tmp_path / "brought", weights)
    target = tmp_path / "weights"
    convert(monkeypatch, "resnet-18", "--from", str(tmp_path / "brought"), "--directory", str(target))
    (written,) = target.iterdir()
    assert capsys.readouterr().out.strip() == str(written)
    assert written.name == f"resnet18_v1b-{hashlib.sha1(written.read_bytes()).hexdigest()[:8]}.params"
    theirs = resnetv1b.resnet18_v1b(pretrained=False)
    theirs.load_parameters(str(written))
    for name, parameter in theirs._collect_params_with_prefix().items():
        assert np.array_equal(parameter.data().asnumpy(), weights[name]), name

    written.write_bytes(written.read_bytes()[:-100] + bytes(100))
    monkeypatch.setenv("PRETRAINED_DIR", str(target))
    with pytest.raises(
        ClientError, match=rf"{written.name} is corrupt: its SHA-1 is \w+, which differs from that in its name"
    ):
        pretrained.find_pretrained(environment(tmp_path), "resnet-18")


def test_gluoncv_file_has_precedence_over_a_converted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Weights
) -> None:
    monkeypatch.setenv("PRETRAINED_DIR", str(tmp_path))
    write_gluoncv(tmp_path / "own", weights)
    pretrained.convert(tmp_path / "own", "resnet-18", tmp_path)
    with pytest.raises(SystemExit, match=r"resnet-34: .*own does not contain the weights of resnet-34: "):
        convert(monkeypatch, "resnet-34", "--from", str(tmp_path / "own"))
    (tmp_path / "resnet18_v1b-2d9d980c.params").write_bytes(b"other bytes")
    with pytest.raises(ClientError, match=r"resnet18_v1b-2d9d980c\.params is corrupt"):
        pretrained.find_pretrained(environment(tmp_path), "resnet-18")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server on this machine gives, in place of every source."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv(sources.MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()


def test_weights_are_downloaded_converted_and_found(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = random_weights("resnet-34")
    (mirror / "resnet34.gluon_in1k.safetensors").write_bytes(b"no weights")
    write_gluoncv(tmp_path / "raw", weights)
    sha1 = hashlib.sha1((tmp_path / "raw").read_bytes()).hexdigest()
    own = sources.Source(f"resnet34_v1b-{sha1[:8]}.zip", "http://nowhere/", f"sha1:{sha1}")
    known = sources.BACKBONES["resnet-34"]
    replaced = sources.Backbone(known.gluoncv, sha1, (known.sources[0], own))
    monkeypatch.setitem(sources.BACKBONES, "resnet-34", replaced)
    with zipfile.ZipFile(mirror / own.file, "w") as archive:
        archive.write(tmp_path / "raw", f"resnet34_v1b-{sha1[:8]}.params")
    target = tmp_path / "weights"
    convert(monkeypatch, "resnet-34", "--directory", str(target))
    (written,) = target.iterdir()  # nothing of what was tried stays
    assert capsys.readouterr().out.strip() == str(written)
    loaded = {name: array.asnumpy() for name, array in mx.nd.load(str(written)).items()}
    assert loaded.keys() == weights.keys()
    assert all(np.array_equal(loaded[name], weights[name]) for name in weights)
    for file in mirror.iterdir():
        file.unlink()
    convert(monkeypatch, "resnet-34", "--directory", str(target))  # it is there: no source is asked


def test_existing_published_file_is_used_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that a person put there, or that an image's build has fetched."""
    monkeypatch.setenv(sources.MIRROR_VARIABLE, "http://127.0.0.1:9")
    write_timm(tmp_path / "resnet50s.gluon_in1k.safetensors", random_weights("resnet-50"))
    convert(monkeypatch, "resnet-50", "--directory", str(tmp_path))
    assert "fetching" not in capsys.readouterr().err
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["resnet50_v1s-"]


def test_error_lists_every_source_with_its_reason(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mirror / "resnet50s.gluon_in1k.safetensors").write_bytes(b"no weights")
    (mirror / "resnetd50b-0549-17d6004b.params.zip").write_bytes(b"other bytes")
    with pytest.raises(SystemExit) as caught:
        convert(monkeypatch, "resnet-50", "--directory", str(tmp_path / "weights"))
    address, message = (
        sources.address_of(sources.BACKBONES["resnet-50"].sources[0]).rsplit("/", 1)[0],
        str(caught.value),
    )
    sha1 = hashlib.sha1(b"other bytes").hexdigest()
    assert message.splitlines()[:4] == [
        "the ImageNet weights of resnet-50 could not be downloaded:",
        f"  {address}/resnetd50b-0549-17d6004b.params.zip: the server sent another file: its SHA1 is {sha1} "
        "instead of 17d6004b5c6c1b97cfb47377ae5076810c5d88be",
        f"  {address}/resnet50s.gluon_in1k.safetensors: "
        f"{tmp_path}/weights/resnet50s.gluon_in1k.safetensors is not a weight file. Use "
        f"{sources.BACKBONES['resnet-50'].sources[0].address} or {sources.BACKBONES['resnet-50'].sources[1].address}.",
        f"  {address}/resnet50_v1s-25a187fa.zip: the server returned 404 File not found",
    ]
    assert "--from FILE" in message.splitlines()[4] and "pretrained channel" in message.splitlines()[4]
    assert list((tmp_path / "weights").iterdir()) == []
