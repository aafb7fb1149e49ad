"""Rendezvous of the hosts of a job, by name and through the MXNet scheduler."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from container.cluster.addresses import is_listening, own_address, wait_for_addresses
from container.cluster.child_process import ChildProcess
from container.cluster.parameter_server import HEARTBEAT_SECONDS
from container.environment import Environment
from container.errors import ClientError, JobCancelledError, PlatformError
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

_SLICE_SECONDS = 0.5
_STOP_SECONDS = 60  # that a host that must stop waits for the others, to notify them


class Rendezvous:
    """Connection of one host to the others; `nodes` are its child processes, with the scheduler first if it has one."""

    def __init__(
        self,
        names: Sequence[str],
        name: str,
        job: Hyperparameters,
        environment: Environment,
        requested: threading.Event,
    ) -> None:
        self.nodes: list[ChildProcess] = []
        self._names = names
        self._name = name
        self._first = name == names[0]
        self._job = job
        self._requested = requested
        self._interface = environment.network_interface
        self._timeout = environment.cluster_timeout
        self._deadline = time.monotonic() + self._timeout
        self._seen = False  # whether the first host has joined
        self._come: list[str] = []  # hosts that have joined
        self._addresses: dict[str, str] = {}
        self._root = ""

    def prepare(self) -> None:
        """Wait for addresses, start the processes of this host, and set the MXNet environment variables of a worker."""
        self._addresses = wait_for_addresses(self._names, self._timeout)
        own = own_address(self._name, self._addresses[self._name], self._job.network_interface, self._interface)
        LOG.info("Waiting for all hosts: host=%s address=%s hosts=%s", self._name, own, ",".join(self._names))
        self._root = own if self._first else self._addresses[self._names[0]]
        port = self._job.ps_port
        if self._first and is_listening(self._root, port):
            raise ClientError(f"port {port} of {self._name} is in use by another process. Set _ps_port to a free port.")
        count = str(len(self._names))
        settings = {
            "DMLC_PS_ROOT_URI": self._root,
            "DMLC_PS_ROOT_PORT": str(port),
            "DMLC_NODE_HOST": own,
            "DMLC_NUM_WORKER": count,
            "DMLC_NUM_SERVER": count,
            "PS_HEARTBEAT_INTERVAL": str(HEARTBEAT_SECONDS),
        }
        for role in ("scheduler", "server") if self._first else ("server",):
            self.nodes.append(ChildProcess(role, len(self._names), settings))
        os.environ |= {**settings, "DMLC_ROLE": "worker"}

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until MXNet has connected all hosts; raises PlatformError for a host that is lost or does not join.

        Raises JobCancelledError if the job was stopped and the other hosts do not join to be notified.
        """
        stop_by = float("inf")
        pause = threading.Event()
        while not done():
            for node in self.nodes:
                if reason := node.ending():
                    raise PlatformError(reason)
            missing = self._missing() if self._first else self._missing_first()
            if time.monotonic() > self._deadline:
                raise self._late(missing)
            if self._requested.is_set():
                stop_by = min(stop_by, time.monotonic() + _STOP_SECONDS)
            if time.monotonic() > stop_by:
                raise JobCancelledError
            pause.wait(_SLICE_SECONDS)

    def _missing(self) -> list[str]:
        """Return the hosts that have not registered with the scheduler; raises PlatformError if one disappeared."""
        registered = self.nodes[0].registered
        for address, port in registered:
            if is_listening(address, port) is False:
                names = [name for name in self._names if self._addresses[name] == address]
                raise gone(names[0] if names else address)
        there = {address for address, _ in registered}
        come = [name for name in self._names if self._addresses[name] in there]
        for name in come:
            if name not in self._come:
                self._come.append(name)
                LOG.info("Host joined: host=%s", name)
        return [name for name in self._names[1:] if name not in come]

    def _missing_first(self) -> list[str]:
        """Return the first host if it has not joined; raises PlatformError if it disappeared."""
        listening = is_listening(self._root, self._job.ps_port)
        if self._seen and listening is False:
            raise gone(self._names[0])
        if listening and not self._seen:
            self._seen = True
            LOG.info("Host joined: host=%s", self._names[0])
        return [] if self._seen else [self._names[0]]

    def _late(self, missing: list[str]) -> PlatformError:
        first = self._names[0]
        who = ", ".join(missing) or f"one or more of the other hosts (listed in the failure file of {first})"
        return PlatformError(
            f"after {self._timeout:.0f} s (CLUSTER_TIMEOUT_SECONDS), {who} had not joined. Check the log of the "
            f"missing hosts, and allow traffic between the hosts on all ports in the security group, including port "
            f"{self._job.ps_port} of {first}."
        )


def gone(host: str) -> PlatformError:
    """Return the error for a host that exited or lost its connection without a reason."""
    return PlatformError(
        f"host {host} exited or is not reachable. Check its failure file and the end of its log for the reason. If "
        "they contain none, the host was killed (out of memory?) or lost its network connection. Start the job again. "
        "With checkpoint_s3_uri, it resumes."
    )
