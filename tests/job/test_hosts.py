"""Jobs on hosts with a network each: late, cut off, slow, on the wrong interface, or beside strangers.

They need root and iproute2. CLUSTER=all runs all of them.
"""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mxnet as mx
import pytest

from container.mx.networks.segmentation import SegmentationNetwork, load_weights
from tests.conftest import wait_until
from tests.job import cluster
from tests.job.network import Network, network, tell_hosts
from tests.job.test_cluster import ALL, DEADLINE, PATIENCE, STEPS, assert_equal_weights, await_log

pytestmark = pytest.mark.usefixtures("ended")

whole = pytest.mark.skipif(not ALL, reason="CLUSTER=all")


@pytest.fixture
def net(request: pytest.FixtureRequest) -> Iterator[Network]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(network(getattr(request, "param", 2)))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield made


def start(net: Network, roots: list[Path], number: int, devices: int = 0, **variables: str) -> subprocess.Popen[str]:
    return cluster.start(roots[number - 1], devices, net.enter(number), **variables)


def lay_out(root: Path, net: Network, interface: str = "data0", **changes: object) -> list[Path]:
    roots = cluster.lay_out(root, net.count, **{"_ps_port": None, **changes})
    tell_hosts(roots, interface)
    return roots


def assert_all_end(started: list[subprocess.Popen[str]], roots: list[Path], began: float) -> None:
    """All hosts end with an error, in time."""
    logs = functools.partial(map, cluster.log, roots)
    wait_until(lambda: all(each.poll() is not None for each in started), PATIENCE, lambda: "\n".join(logs()))
    assert time.monotonic() - began < DEADLINE
    assert [each.returncode for each in started] == [1] * len(roots)


@whole
@pytest.mark.parametrize("net", [2, 3, 4], indirect=True)
@pytest.mark.parametrize("late", ["", "first", "last"])
def test_hosts_train_as_one_although_one_is_late(tmp_path: Path, net: Network, late: str) -> None:
    (alone,) = cluster.lay_out(tmp_path / "alone", 1, **STEPS)
    cluster.run([alone], devices=1)
    roots = lay_out(tmp_path, net, **STEPS)
    numbers = list(range(1, net.count + 1))
    absent = {"first": 1, "last": net.count}.get(late)
    started = {number: start(net, roots, number, devices=1) for number in numbers if number != absent}
    if absent:
        for number in started:
            await_log(roots[number - 1], "Waiting for all hosts")
        threading.Event().wait(60)  # this is how late it is
        started[absent] = start(net, roots, absent, devices=1)
    for number, process in started.items():
        assert process.wait(PATIENCE) == 0, cluster.log(roots[number - 1])
    assert_equal_weights(roots[0], alone)


@pytest.mark.parametrize("number", [1, 2] if ALL else [2])
def test_a_host_that_is_cut_off_ends_the_job_and_is_named(tmp_path: Path, net: Network, number: int) -> None:
    roots = lay_out(tmp_path, net, epochs="1000", _logging_frequency="1")
    started = [start(net, roots, each) for each in (1, 2)]
    await_log(roots[0], "iterations: 2 ")
    net.cut(number)
    assert_all_end(started, roots, time.monotonic())
    other = {1: 2, 2: 1}
    for own, root in enumerate(roots, 1):  # each believes that the other one is gone
        assert cluster.failure(root).startswith(f"PlatformError: host algo-{other[own]} exited or is not reachable")


@whole
@pytest.mark.parametrize("number", [1, 2])
def test_a_link_that_is_down_for_three_seconds_does_no_harm(tmp_path: Path, net: Network, number: int) -> None:
    (alone,) = cluster.lay_out(tmp_path / "alone", 1, **STEPS)
    cluster.run([alone], devices=1)
    roots = lay_out(tmp_path, net, **STEPS, _logging_frequency="1")
    started = [start(net, roots, each, devices=1) for each in (1, 2)]
    await_log(roots[0], "iterations: 1 ")
    net.cut(number)
    threading.Event().wait(3)  # this is how long it is down
    net.mend(number)
    assert [each.wait(PATIENCE) for each in started] == [0, 0], cluster.log(roots[0])
    assert_equal_weights(roots[0], alone)


@whole
def test_a_slow_and_lossy_network_changes_nothing_but_the_time(tmp_path: Path, net: Network) -> None:
    try:
        net.slow_down(2, "delay", "20ms", "10ms", "loss", "1%")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel cannot slow a network down: {error.stderr.decode().strip()}")
    (alone,) = cluster.lay_out(tmp_path / "alone", 1, **STEPS)
    cluster.run([alone], devices=1)
    roots = lay_out(tmp_path, net, **STEPS)
    started = [start(net, roots, each, devices=1) for each in (1, 2)]
    assert [each.wait(PATIENCE) for each in started] == [0, 0], cluster.log(roots[0])
    assert_equal_weights(roots[0], alone)


def test_a_wrong_interface_is_named_and_the_jobs_own_word_wins(tmp_path: Path, net: Network) -> None:
    roots = lay_out(tmp_path, net, epochs="1", _network_interface="eth7")
    started = [start(net, roots, each, CLUSTER_TIMEOUT_SECONDS="60") for each in (1, 2)]
    assert [each.wait(PATIENCE) for each in started] == [1, 1], cluster.log(roots[0])
    for own, root in enumerate(roots, 1):
        reason = f"which has no IPv4 address on host algo-{own}. Use one of lo, aside0, data0."
        told = f"_network_interface is eth7, {reason}"
        assert cluster.failure(root) == f"ClientError: {told}"
    if ALL:  # the platform names the one that leads nowhere, the job the right one
        roots = lay_out(tmp_path / "right", net, "aside0", epochs="1", _network_interface="data0")
        started = [start(net, roots, each) for each in (1, 2)]
        assert [each.wait(PATIENCE) for each in started] == [0, 0], cluster.log(roots[0])


@whole
def test_an_interface_that_leads_nowhere_is_a_job_that_nobody_joins(tmp_path: Path, net: Network) -> None:
    roots = lay_out(tmp_path, net, "aside0", epochs="1")
    started = [start(net, roots, each, CLUSTER_TIMEOUT_SECONDS="20") for each in (1, 2)]
    assert [each.wait(PATIENCE) for each in started] == [1, 1], cluster.log(roots[0])
    assert "had not joined" in cluster.failure(roots[0]) and "algo-2" in cluster.failure(roots[0])
    assert "had not joined" in cluster.failure(roots[1]) and "algo-1" in cluster.failure(roots[1])


STRANGER = """
import socket, sys, time
end, data = time.monotonic() + float(sys.argv[2]), bytes.fromhex(sys.argv[3])
while time.monotonic() < end:
    try:
        with socket.create_connection((sys.argv[1], 8000), 2) as peer:
            peer.sendall(data)
            peer.settimeout(0.2)
            peer.recv(100)
    except OSError:
        pass
    time.sleep(0.02)
"""


@whole
@pytest.mark.parametrize("kind", ["zeros", "http", "whole", "zmtp"])
def test_strangers_at_the_schedulers_port_do_no_harm_or_are_named(tmp_path: Path, net: Network, kind: str) -> None:
    data = {
        "zeros": bytes(2000),
        "http": b"GET / HTTP/1.1\r\nHost: algo-1\r\n\r\n",
        "whole": random.Random(1).randbytes(5000),  # ZeroMQ takes it for a whole message of its oldest protocol
        # a greeting of ZeroMQ's protocol, READY of a dealer, and a message that is none of ps-lite's
        "zmtp": b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 32) + b"\x04\x19\x05READY\x0bSocket-Type"
        b"\x00\x00\x00\x06DEALER" + b"\x00\x07garbage",
    }[kind]
    roots = lay_out(tmp_path, net, **STEPS)
    stranger = [*net.enter(2), sys.executable, "-c", STRANGER, "10.77.0.1", "60", data.hex()]
    with subprocess.Popen(stranger) as peer:
        started = [start(net, roots, each, CLUSTER_TIMEOUT_SECONDS="60") for each in (1, 2)]
        codes = [each.wait(PATIENCE) for each in started]
        peer.kill()
    if kind != "whole":
        assert codes == [0, 0], cluster.log(roots[0])
        return
    assert codes == [1, 1]  # ps-lite's scheduler does not survive it
    assert "exited by signal 6: a client that is not a host of this job sent data to its port" in cluster.failure(
        roots[0]
    )
    assert "algo-1" in cluster.failure(roots[1])


@whole
def test_a_port_that_is_taken_is_named(tmp_path: Path, net: Network) -> None:
    roots = lay_out(tmp_path, net, epochs="1")
    program = "import socket; s = socket.create_server(('', 8000)); print(1, flush=True); s.accept(); input()"
    with subprocess.Popen([*net.enter(1), sys.executable, "-c", program], stdin=-1, stdout=-1) as other:
        assert other.stdout and other.stdout.readline()
        started = [start(net, roots, each, CLUSTER_TIMEOUT_SECONDS="30") for each in (1, 2)]
        assert [each.wait(PATIENCE) for each in started] == [1, 1], cluster.log(roots[0])
        other.kill()
    assert cluster.failure(roots[0]).startswith("ClientError: port 8000 of algo-1 is in use by another process")


@whole
@pytest.mark.parametrize("number", [1, 2])
def test_any_host_can_be_stopped_between_two_updates(tmp_path: Path, net: Network, number: int) -> None:
    settings = {**STEPS, "_accumulate": "2", "_ema": "0.5", "_logging_frequency": "1", "epochs": "2"}
    (alone,) = cluster.lay_out(tmp_path / "alone", 1, **settings)
    cluster.run([alone], devices=1)
    roots = lay_out(tmp_path, net, **settings)
    for root in roots:
        (root / "checkpoints").mkdir()
    started = [start(net, roots, each, devices=1) for each in (1, 2)]
    await_log(roots[0], "iterations: 3 ")
    started[number - 1].send_signal(signal.SIGTERM)
    assert [each.wait(PATIENCE) for each in started] == [0, 0], cluster.log(roots[0])
    load_weights(SegmentationNetwork("fcn", "resnet-18", 2), roots[0] / "model/model_best.params", [mx.cpu()])
    started = [start(net, roots, each, devices=1) for each in (1, 2)]
    assert [each.wait(PATIENCE) for each in started] == [0, 0], cluster.log(roots[0])
    for root in roots:
        assert "resuming from" in cluster.log(root)
    assert_equal_weights(roots[0], alone, 3e-5)
