"""The `serve` process under load, hostile clients and signals, on a model with random weights and its graph."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from PIL import Image

from container.mx.export import export_onnx
from tests.conftest import PROGRAM, wait_until
from tests.job.server import PATIENCE, Server, children, free_port, noise, run_serve, write_model

SPY = """
import os, sys
def hook(event, arguments):
    if event == "import" and arguments[0].split(".")[0] in ("mxnet", "gluoncv", "openvino_telemetry"):
        print("SPY import", arguments[0], file=sys.stderr, flush=True)
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.posix_spawn"):
        print("SPY", event, arguments, file=sys.stderr, flush=True)
sys.addaudithook(hook)
print("SPY here", file=sys.stderr, flush=True)
"""


FAILING = f"""
import sys
sys.path.insert(0, {str(PROGRAM)!r})
from container.engines.openvino import OpenVinoEngine
mask = OpenVinoEngine.mask
def fail(self, image, *others, **named):
    if image.shape[1] == 13:
        raise RuntimeError("unlucky")
    return mask(self, image, *others, **named)
OpenVinoEngine.mask = fail
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ml")
    export_onnx(write_model(root), root / "model" / "model.onnx")
    return root


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("spy")
    (folder / "sitecustomize.py").write_text(SPY)
    with Server(root, folder / "log", PYTHONPATH=str(folder), SERVE_METRICS="1", QUEUE_SECONDS="1") as server:
        yield server


def test_process_does_not_load_mxnet_or_open_connections(server: Server) -> None:
    assert server.invoke(noise(40, 40)).status_code == 200
    spied = [line for line in server.log.read_text().splitlines() if line.startswith("SPY")]
    assert set(spied) == {"SPY here"}
    for process_id in (server.process.pid, *children(server.process.pid)):
        assert "libmxnet" not in Path(f"/proc/{process_id}/maps").read_text()


def test_a_request_is_one_line_of_json_in_the_log(server: Server) -> None:
    assert server.invoke(noise(30, 50)).status_code == 200
    wait_until(lambda: '"width": 50' in server.log.read_text(), PATIENCE)
    (line,) = [line for line in server.log.read_text().splitlines() if '"width": 50' in line]
    assert (json.loads(line)["status"], json.loads(line)["height"]) == (200, 30)
    assert 'requests_total{status="200"}' in requests.get(f"{server.url}/metrics", timeout=PATIENCE).text


def test_ping_is_quick_while_the_queue_is_full(server: Server) -> None:
    target, done = io.BytesIO(), threading.Event()
    statuses: list[int] = []
    Image.new("RGB", (480, 480)).save(target, "PNG")

    def keep_asking() -> None:
        while not done.is_set():
            statuses.append(server.invoke(target.getvalue()).status_code)
            done.wait(0.2)

    with ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(keep_asking) for _ in range(16)]
        try:
            wait_until(lambda: 503 in statuses, PATIENCE)
            seconds = sorted(_ping(server) for _ in range(100))
            refused = statuses.count(503)
            wait_until(lambda: statuses.count(503) > refused, PATIENCE)
        finally:
            done.set()
    for client in clients:
        client.result()
    assert set(statuses) == {200, 503}
    assert seconds[98] < 2  # the platform's limit: the machine may be busy with more than this server


def _address(server: Server) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


def _ping(server: Server) -> float:
    start = time.monotonic()
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE)
    connection.request("GET", "/ping")
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - start


HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_slow_senders_are_rejected(server: Server) -> None:
    stalling = {
        "body": HEAD + b"Content-Length: 999\r\n\r\nhalf",
        "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\na",
        "many small chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        "headers": HEAD[:40],
        "trickling headers": HEAD + b"X-Slow: ",
        "no request": b"",
        "no second request": b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    with contextlib.ExitStack() as opened:
        start, connections = time.monotonic(), {}
        for kind, sent in stalling.items():
            connections[kind] = opened.enter_context(socket.create_connection(_address(server), timeout=60))
            connections[kind].sendall(sent)
        assert b" 200 " in connections["no second request"].recv(2**16)
        sender = threading.Thread(target=_send_small_chunks, args=(connections["many small chunks"],))
        sender.start()
        while not select.select([connections["trickling headers"]], [], [], 0.2)[0]:
            assert time.monotonic() - start < 40
            connections["trickling headers"].sendall(b"z")
        for kind, connection in connections.items():
            answer = connection.recv(16)
            assert b" 408 " in answer if "request" not in kind else not answer, kind
        assert time.monotonic() - start < 45
        with contextlib.suppress(OSError):  # ends the sender
            connections["many small chunks"].shutdown(socket.SHUT_RDWR)
        sender.join()


def _send_small_chunks(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # until the server closes the connection
        while True:
            connection.sendall(b"1\r\na\r\n" * 10_000)


def _keep_sending(server: Server, first: bytes, again: bytes, ended: threading.Event) -> None:
    while not ended.is_set():
        with contextlib.suppress(OSError), socket.create_connection(_address(server), timeout=5) as connection:
            connection.sendall(first)
            while again and not ended.is_set():
                connection.sendall(again)
            while connection.recv(2**16) and not ended.is_set():
                pass


def _post(headers: bytes, body: bytes) -> bytes:
    length = b"Content-Length: %d\r\nConnection: close\r\n" % len(body)
    return HEAD + headers + length + b"\r\n" + body


GREEDY = {
    "blanks in Accept": (_post(b"Accept: image/png;tta" + b" " * 8000 + b"x\r\n", noise(8, 8)), b""),
    "chunks of one byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 10_000),
    "requests that are sent together": (b"", b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 1000),
    "a large body of a refused type": (
        HEAD.replace(b"image/png", b"text/csv") + b"Content-Length: 99999999999\r\n\r\n",
        bytes(1_000_000),
    ),
    "fill bytes before a JPEG's header": (_post(b"", b"\xff\xd8\xff" + b"\xff" * 60_000_000), b""),
}


@pytest.mark.parametrize("kind", GREEDY)
def test_ping_is_fast_with_greedy_clients(server: Server, kind: str) -> None:
    ended = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(_keep_sending, server, *GREEDY[kind], ended) for _ in range(3)]
        try:
            ended.wait(1)  # by then they are connected and send
            seconds = sorted(_ping(server) for _ in range(60))
            response = server.invoke(noise(8, 8))
        finally:
            ended.set()
    for client in clients:
        client.result()
    assert response.status_code == 200
    assert seconds[-2] < 1  # the goal is 0.25 s, see benchmarks/pressure.py; the machine may be busy with others


def test_a_reader_that_trickles_loses_its_place(server: Server) -> None:
    body = noise(500, 801)
    head = HEAD + f"Accept: application/x-npy\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        connection.connect(_address(server))
        connection.sendall(head + body)
        start = time.monotonic()
        while '"width": 801' not in server.log.read_text():  # the line is written when the request is over
            assert time.monotonic() - start < 60  # at this speed the whole answer would take four minutes
            assert connection.recv(10_000)
            threading.Event().wait(0.3)


def test_silent_connections_hold_no_thread(server: Server) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(500):
            silent.enter_context(socket.create_connection(_address(server), timeout=30))
        assert requests.get(f"{server.url}/ping", timeout=2).status_code == 200


def test_slow_clients_do_not_block_other_requests(server: Server) -> None:
    with contextlib.ExitStack() as slow:
        for first in (HEAD[:40], HEAD + b"Content-Length: 999\r\n\r\nhalf"):
            for _ in range(200):
                slow.enter_context(socket.create_connection(_address(server), timeout=30)).sendall(first)
        assert requests.get(f"{server.url}/ping", timeout=2).status_code == 200
        assert server.invoke(noise(16, 16)).status_code == 200


def test_a_refusal_does_not_wait_for_a_body_that_trickles(server: Server) -> None:
    with socket.create_connection(_address(server), timeout=30) as connection:
        connection.sendall(HEAD.replace(b"image/png", b"text/csv") + b"Content-Length: 9999\r\n\r\n")
        start = time.monotonic()
        while not select.select([connection], [], [], 0.2)[0]:
            assert time.monotonic() - start < 20
            connection.sendall(b"z")
        assert b" 415 " in connection.recv(16)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (HEAD + b"X: " + b"x" * 9000 + b"\r\n\r\n", 431),
    ],
)
def test_malformed_request_is_rejected_in_json(server: Server, sent: bytes, status: int) -> None:
    with socket.create_connection(_address(server), timeout=30) as connection:
        connection.sendall(sent)
        head, _, content = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/json" in head
    assert list(json.loads(content)) == ["error"]


def test_request_of_a_disconnected_client_is_canceled(server: Server) -> None:
    leaving = server.start_invocation(noise(300, 302))
    leaving.close()
    wait_until(lambda: '"width": 302' in server.log.read_text(), PATIENCE)
    (line,) = [line for line in server.log.read_text().splitlines() if '"width": 302' in line]
    assert json.loads(line)["status"] == 499


def test_chunks_that_are_none_are_400(server: Server) -> None:
    with socket.create_connection(_address(server), timeout=30) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nnonsense\r\n")
        assert b" 400 " in connection.recv(16)


def _kill_worker(server: Server) -> None:
    worker = children(server.process.pid)[0]
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: worker not in children(server.process.pid), PATIENCE)


def test_ping_is_503_until_the_successor_of_a_dead_worker_is_warm(server: Server) -> None:
    _kill_worker(server)
    before = server.ping_until_ready()
    assert {answer.status_code for answer in before} == {503}
    assert server.invoke(noise(40, 40)).status_code == 200


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_the_server_listens_on_both_internet_protocols(server: Server) -> None:
    port = _address(server)[1]
    for host in ("127.0.0.1", "[::1]"):
        assert requests.get(f"http://{host}:{port}/ping", timeout=5).status_code == 200


def test_sigterm_processes_waiting_requests(server: Server) -> None:
    """The last test with this server: it ends it."""
    waiting = [server.start_invocation(noise(160, 160)) for _ in range(8)]
    assert requests.get(f"{server.url}/ping", timeout=2).status_code == 200  # connections are taken in their order
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    statuses = [connection.getresponse().status for connection in waiting]
    assert server.process.wait(timeout=30) == 0
    assert time.monotonic() - start < 25
    assert set(statuses) <= {200, 503} and statuses[0] == 200


def test_sigterm_processes_requests_of_open_connections(root: Path, tmp_path: Path) -> None:
    with Server(root, tmp_path / "log") as server:
        (worker,) = children(server.process.pid)
        os.kill(worker, signal.SIGSTOP)
        waiting = [server.start_invocation(noise(8, 8)) for _ in range(8)]
        with socket.create_connection(
            _address(server)
        ):  # who says nothing is let go, long before a silence is too long
            server.process.send_signal(signal.SIGTERM)
            os.kill(worker, signal.SIGCONT)
            assert [connection.getresponse().status for connection in waiting] == [200] * 8
            assert server.process.wait(timeout=15) == 0


def test_requests_succeed_while_another_worker_is_ready(root: Path, tmp_path: Path) -> None:
    statuses: list[int] = []

    def has_loaded(count: int) -> bool:
        statuses.append(requests.get(f"{server.url}/ping", timeout=2).status_code)
        return server.log.read_text().count("is ready after") >= count

    def has_counted(count: int) -> bool:  # which a worker does when it has sent the answer, before it writes the line
        return server.log.read_text().count('"path": "/invocations"') >= count

    with Server(root, tmp_path / "log", SAGEMAKER_MODEL_SERVER_WORKERS="2", SERVE_METRICS="1") as server:
        for count in (2, 3, 4):  # the second of the first two is ready, then each one's successor
            wait_until(functools.partial(has_loaded, count), PATIENCE, server.log.read_text)
            assert server.invoke(noise(8, 8)).status_code == 200
            wait_until(functools.partial(has_counted, count - 1), PATIENCE, server.log.read_text)
            _kill_worker(server)
        told = requests.get(f"{server.url}/metrics", timeout=PATIENCE).text
    assert set(statuses) == {200}
    assert 'requests_total{status="200"} 3.0' in told.splitlines()  # of workers that are gone, too


def test_worker_restarts_after_three_consecutive_inference_failures(root: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    with Server(root, tmp_path / "log", PYTHONPATH=str(tmp_path)) as server:
        (worker,) = children(server.process.pid)
        assert [server.invoke(noise(20, 13)).status_code for _ in range(3)] == [500] * 3
        wait_until(lambda: children(server.process.pid) not in ([], [worker]), PATIENCE, server.log.read_text)
        server.ping_until_ready()
        assert server.invoke(noise(20, 14)).status_code == 200
        log = server.log.read_text()
        assert "Inference failed for 3 consecutive images." in log
        assert "Last error: unlucky" in log


def test_int8_of_an_archive_without_it_says_what_to_do(root: Path) -> None:
    ended = run_serve(root, SERVE_PRECISION="int8", SAGEMAKER_BIND_TO_PORT=str(free_port()))
    assert ended.returncode == 3
    assert (
        "model.int8.onnx, which does not exist. Do one of the following: (1) Train with _quantize=True" in ended.stderr
    )


def test_a_precision_of_the_other_engine_says_what_to_do(root: Path) -> None:
    ended = run_serve(root, SERVE_PRECISION="float16", SAGEMAKER_BIND_TO_PORT=str(free_port()))
    assert ended.returncode == 3
    assert "SERVE_PRECISION=float16 needs a GPU" in ended.stderr


def test_a_multi_model_endpoint_starts_empty(root: Path, tmp_path: Path) -> None:
    with Server(tmp_path, tmp_path / "log", SAGEMAKER_MULTI_MODEL="true") as server:
        loaded = requests.post(
            f"{server.url}/models", json={"model_name": "a", "url": str(root / "model")}, timeout=PATIENCE
        )
        assert loaded.status_code == 200
        headers = {"Content-Type": "image/png"}
        answer = requests.post(f"{server.url}/models/a/invoke", noise(20, 30), headers=headers, timeout=PATIENCE)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")


def test_a_multi_model_server_ends_when_the_process_of_its_models_is_killed(root: Path, tmp_path: Path) -> None:
    with Server(tmp_path, tmp_path / "log", SAGEMAKER_MULTI_MODEL="true") as server:
        model = {"model_name": "a", "url": str(root / "model")}
        assert requests.post(f"{server.url}/models", json=model, timeout=PATIENCE).status_code == 200
        os.kill(children(server.process.pid)[0], signal.SIGKILL)
        assert server.process.wait(timeout=PATIENCE) == 4
        assert "the process with the loaded models exited" in server.log.read_text()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{server.url}/ping", timeout=2)


def test_a_multi_model_server_ends_in_good_order(tmp_path: Path) -> None:
    with Server(tmp_path, tmp_path / "log", SAGEMAKER_MULTI_MODEL="true") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
