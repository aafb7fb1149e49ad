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
_STOP_SECONDS = 60  # for which a host that is to stop still waits for the others, to tell them


class Rendezvous:
    """One host's way to the others; `nodes` are the processes beside it, the scheduler first where there is one."""

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
        self._seen = False  # whether the first host was there
        self._come: list[str] = []  # the hosts of which a process was there
        self._addresses: dict[str, str] = {}
        self._root = ""

    def prepare(self) -> None:
        """Wait for addresses, start this host's processes, and set MXNet's variables for a worker's store."""
        self._addresses = wait_for_addresses(self._names, self._timeout)
        own = own_address(self._name, self._addresses[self._name], self._job.network_interface, self._interface)
        LOG.info("this is host %s, at %s, one of %s: waiting for all", self._name, own, ", ".join(self._names))
        self._root = own if self._first else self._addresses[self._names[0]]
        port = self._job.ps_port
        if self._first and is_listening(self._root, port):
            raise ClientError(f"port {port} of {self._name} is taken by something else: give another one by _ps_port")
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
        """Wait until MXNet has found all hosts; raises PlatformError for one that is lost or does not come.

        Raises Cancelled when the job was stopped, and the others do not come to be told.
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
        """Name the hosts that the scheduler has not heard of; raises PlatformError for one that is lost again."""
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
                LOG.info("host %s has come", name)
        return [name for name in self._names[1:] if name not in come]

    def _missing_first(self) -> list[str]:
        """Name the first host unless it is there; raises PlatformError when it is lost again."""
        listening = is_listening(self._root, self._job.ps_port)
        if self._seen and listening is False:
            raise gone(self._names[0])
        if listening and not self._seen:
            self._seen = True
            LOG.info("host %s is there", self._names[0])
        return [] if self._seen else [self._names[0]]

    def _late(self, missing: list[str]) -> PlatformError:
        first = self._names[0]
        who = ", ".join(missing) or f"one or more of the other hosts ({first}'s failure file names them)"
        return PlatformError(
            f"after {self._timeout:.0f} s {who} had not come: see the log there, and let the hosts reach each other on "
            f"all ports (security group), {self._job.ps_port} of {first} first of all (CLUSTER_TIMEOUT_SECONDS is the "
            "deadline)"
        )


def gone(host: str) -> PlatformError:
    """Return the error of a host that is no longer there, and has not said why."""
    return PlatformError(
        f"host {host} is gone: its failure file or the end of its log says why; where they are silent it was killed "
        "(out of memory?) or cut off from the network. Start the job again; with checkpoint_s3_uri it goes on"
    )
