"""The real `serve` process on a model with random weights, from outside: HTTP and signals."""

from __future__ import annotations

import importlib.util
import io
import json
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import mxnet as mx
import numpy as np
import pytest
import requests
from grpc_tools import protoc
from PIL import Image

from tests.job.server import CLASSES, PATIENCE, Server, free_port, noise, run_serve, write_model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ml")
    write_model(root)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with Server(root, root / "log", MAX_CONTENT_LENGTH="2000000", QUEUE_SECONDS="2") as server:
        yield server


@pytest.fixture(scope="module")
def record_pb2(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The parser that protobuf's own compiler makes of record.proto."""
    folder = tmp_path_factory.mktemp("proto")
    assert protoc.main(["protoc", f"-I{Path(__file__).parent}", f"--python_out={folder}", "record.proto"]) == 0
    spec = importlib.util.spec_from_file_location("record_pb2", folder / "record_pb2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(record_pb2: ModuleType, answer: bytes, path: Path) -> np.ndarray:
    """Read the answer as AWS's notebook does: MXNet's RecordIO, protobuf's parser; shape (1, C, H, W)."""
    path.write_bytes(answer)
    record = record_pb2.Record()
    record.ParseFromString(mx.recordio.MXRecordIO(str(path), "r").read())
    shape = list(record.features["shape"].int32_tensor.values)
    return np.array(record.features["target"].float32_tensor.values, np.float32).reshape(shape)


def test_ping_is_503_while_the_graph_is_made(server: Server) -> None:
    assert {answer.status_code for answer in server.before_ready} == {503}
    assert server.before_ready[0].headers["Retry-After"] == "1"
    assert server.before_ready[0].json() == {"error": "The server is loading the model. Try again."}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 333), (240, 320)])
def test_probabilities_belong_to_the_mask(
    server: Server, record_pb2: ModuleType, tmp_path: Path, height: int, width: int
) -> None:
    image = noise(height, width)
    answer = server.invoke(image, "application/x-recordio-protobuf")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-recordio-protobuf")
    probabilities = parse(record_pb2, answer.content, tmp_path / "answer.rec")
    assert probabilities.shape == (1, CLASSES, height, width)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)

    mask = Image.open(io.BytesIO(server.invoke(image).content))
    assert (mask.mode, mask.size) == ("L", (width, height))
    np.testing.assert_array_equal(probabilities[0].argmax(0), np.asarray(mask))


def test_the_mask_distinguishes_classes(server: Server) -> None:
    """Without this the test above could pass on masks of a single class."""
    assert len(set(Image.open(io.BytesIO(server.invoke(noise(64, 96)).content)).tobytes())) > 1


def test_other_formats_hold_the_same_answer(server: Server) -> None:
    image = noise(7, 33)
    mask = np.asarray(Image.open(io.BytesIO(server.invoke(image).content)))
    array = np.load(io.BytesIO(server.invoke(image, "application/x-npy").content))
    assert array.shape == (1, CLASSES, 7, 33)
    np.testing.assert_array_equal(array[0].argmax(0), mask)
    described = server.invoke(image, "application/json").json()
    assert described["shape"] == [7, 33]
    assert {entry["id"]: round(entry["share"] * mask.size) for entry in described["classes"]} == {
        label: int((mask == label).sum()) for label in set(mask.ravel().tolist())
    }


def test_ping_answers_while_an_inference_runs(server: Server) -> None:
    connection = server.start_invocation(noise(320, 320))
    during = 0
    while not select.select([connection.sock], [], [], 0)[0]:
        assert requests.get(f"{server.url}/ping", timeout=2).status_code == 200
        during += 1
    assert connection.getresponse().status == 200
    assert during > 1


def test_more_requests_than_can_wait_are_refused_and_the_rest_answered(server: Server) -> None:
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(server.invoke, [noise(200, 200)] * 60))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert sorted({answer.status_code for answer in answers}) == [200, 503]


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(100_000)


def test_a_body_without_length_is_limited_too(server: Server) -> None:
    headers = {"Content-Type": "image/png"}
    answer = requests.post(f"{server.url}/invocations", chunks(30), headers=headers, timeout=PATIENCE)
    assert answer.status_code == 413
    assert "larger than 2000000 bytes" in answer.json()["error"]


def test_half_an_image_is_refused(server: Server) -> None:
    image = noise(64, 64)
    answer = server.invoke(image[: len(image) // 2])
    assert answer.status_code == 400
    assert "PNG image is corrupt" in answer.json()["error"]


def test_a_refusal_reaches_a_client_that_is_still_sending(server: Server) -> None:
    headers = {"Content-Type": "text/csv"}
    answer = requests.post(f"{server.url}/invocations", bytes(20_000_000), headers=headers, timeout=PATIENCE)
    assert answer.status_code == 415


def test_sigterm_lets_the_running_request_finish(server: Server) -> None:
    """The last test with this server: it ends it."""
    connection = server.start_invocation(noise(320, 320))
    assert requests.get(f"{server.url}/ping", timeout=2).status_code == 200  # connections are taken in their order
    assert not select.select([connection.sock], [], [], 0)[0]
    server.process.send_signal(signal.SIGTERM)
    assert connection.getresponse().status == 200
    assert server.process.wait(timeout=30) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.url}/ping", timeout=2)


def test_a_missing_model_ends_the_process_with_one_clear_line(tmp_path: Path) -> None:
    ended = run_serve(tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        f"ClientError: {tmp_path}/model does not contain a model: hyperparams.json is missing"
    )
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [("MAX_PIXELS", "many", "an integer above 0"), ("EXIF_ORIENTATION", "auto", "one of ignore, apply")],
)
def test_a_wrong_setting_ends_the_process_with_one_clear_line(root: Path, name: str, value: str, choices: str) -> None:
    ended = run_serve(root, **{name: value})
    assert ended.returncode == 1
    assert ended.stderr == f"ClientError: the environment variable {name} must be {choices}, not '{value}'\n"


def test_unusable_weights_end_the_process_instead_of_restarting_it(root: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    settings = json.loads((root / "model" / "hyperparams.json").read_text())
    (model / "hyperparams.json").write_text(json.dumps({**settings, "num_classes": "7"}))
    (model / "model_best.params").symlink_to(root / "model" / "model_best.params")
    ended = run_serve(tmp_path, SAGEMAKER_BIND_TO_PORT=str(free_port()))
    assert ended.returncode == 3
    lines = [line for line in ended.stderr.splitlines() if "ClientError" in line]
    assert len(lines) == 1
    assert f"{model}/model_best.params does not match" in lines[0]
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("Booting worker") == 1
