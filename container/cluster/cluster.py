"""Distributed training on the MXNet parameter server: join, monitor, and leave the cluster.

Every host runs two processes: training and a server. The first host also runs the MXNet scheduler. Servers only add:
the optimizer runs in the training process, so all hosts have equal weights.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import mxnet as mx

from container.arrays import Float32Array
from container.cluster.all_reduce import AllReduce
from container.cluster.child_process import ChildProcess
from container.cluster.hosts import Hosts
from container.cluster.parameter_server import is_silent
from container.cluster.rendezvous import Rendezvous, gone
from container.data.batches import Batch
from container.environment import Environment
from container.errors import AlgorithmError, ClientError, JobCancelledError, JobError, PlatformError, last_line
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

_SCHEDULER = 1  # node number of the scheduler in ps-lite
_SLICE_SECONDS = 0.5
_LONGEST_REASON = 600  # characters of the reason that a failed host sends to the others
_TELLING_SECONDS = 3  # to send the other hosts the reason why this host exits
_LEAVING_SECONDS = 20  # for all hosts to leave; all results are written before
_LAST_SECONDS = 1  # that the first host runs longer than the others: local mode stops all hosts when one has exited
_KINDS = {kind.fault: kind for kind in (ClientError, AlgorithmError, PlatformError)}


class Cluster(Hosts):
    """Hosts of a distributed training job. `requested` is set when this host must stop.

    If a host fails, it notifies the others. If a host disappears, the others detect missing heartbeats. In both cases,
    this process calls `fail` with the reason and exits.
    """

    def __init__(
        self,
        environment: Environment,
        job: Hyperparameters,
        requested: threading.Event,
        fail: Callable[[JobError], None],
    ) -> None:
        super().__init__(threading.Event(), environment.hosts, environment.current_host)
        self._job = job
        self.stop_requested = requested
        self._fail = fail
        self._environment = environment
        self._nodes: list[ChildProcess] = []
        self._hosts_by_rank: list[int] = []
        self._sums = AllReduce()
        self._quiet = threading.Event()
        self._leaving = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="watch hosts", daemon=True)

    @contextlib.contextmanager
    def joined(self) -> Iterator[Cluster]:
        """Join the cluster for the duration of the block; an exception in the block is sent to the other hosts."""
        try:
            self._join()
            yield self
            self._part()
        except BaseException as error:
            self._abandon(error)
            raise

    def sum_integers(self, *numbers: int) -> list[int]:
        """Sum each of `numbers` over all hosts."""
        return self._sums.of_integers(numbers)

    def broadcast(self, data: Callable[[], bytes]) -> bytes:
        """Return the `data` of the first host."""
        content = data() if self.first else b""
        (size,) = self.sum_integers(len(content))
        return self._sums.of_bytes(content, size)

    def agree_to_stop(self) -> bool:
        """Return whether any host must stop."""
        (asked,) = self.sum_integers(self.stop_requested.is_set())
        if asked:
            self.stop.set()
        return bool(asked)

    def synchronize_batches(self, batches: Iterator[Batch], crop: int) -> Iterator[Batch]:
        """Yield as many batches as every other host, until no host has a batch or a host must stop."""
        group = -1
        while True:
            batch = next(batches, None)
            own = batch or Batch.empty(crop, group + 1)
            group = own.group
            asked, going, images, labeled = self.sum_integers(
                self.stop_requested.is_set(), batch is not None, len(own), own.labeled
            )
            if asked:
                self.stop.set()
            if asked or not going:
                return
            if images:  # 0 if no host could use a sample of this group
                yield dataclasses.replace(own, whole=(images, labeled))

    def sum_array(self, values: Float32Array) -> Float32Array:
        """Sum an array over all hosts."""
        return self._sums.of_array(values)

    def sum_losses(self, arrays: list[Any]) -> list[Any]:
        """Sum arrays with one number over devices and hosts."""
        return [self._sums.of_devices(arrays)]

    def _join(self) -> None:
        """Start the processes of this host, and wait until the processes of all hosts are connected."""
        began = time.monotonic()
        meeting = Rendezvous(self.names, self.name, self._job, self._environment, self.stop_requested)
        self._nodes = meeting.nodes
        meeting.prepare()
        created = self._sums.make_store(_store_name(self._job.kvstore))
        meeting.wait(created.done)
        self.store = self._sums.store = created.result()
        if self.first:
            self._nodes[0].order("watch")
        self._watcher.start()
        self._hosts_by_rank = [rank for (rank,) in self.gather(self.store.rank)]
        LOG.info("All hosts are connected: hosts=%d seconds=%.1f", self.count, time.monotonic() - began)

    def _watch(self) -> None:
        """Notify the other hosts if this host must stop, and exit if one of them has failed or disappeared."""
        is_sent = False
        while not self._quiet.wait(_SLICE_SECONDS):
            if self.stop_requested.is_set() and not is_sent:
                is_sent = True
                self._tell({"host": self.name, "kind": "stop", "reason": ""})
            for node in self._nodes:
                for kind, text in node.news():
                    self._hear(kind, text)
                if reason := node.ending():
                    self._give_up(PlatformError(reason), tell=True)
            if not self.first and is_silent(self.store.handle, _SCHEDULER):
                self._give_up(gone(self.names[0]))

    def _hear(self, kind: str, text: str) -> None:
        """Process a message from a child process of this host."""
        if kind == "dead":
            self._give_up(gone(self.names[self._hosts_by_rank.index(int(text))]), tell=True)
        if kind != "heard":
            return
        try:
            message = json.loads(text)
            host, what, reason = (str(message[key]) for key in ("host", "kind", "reason"))
        except (ValueError, KeyError, TypeError, AttributeError):
            LOG.warning("The parameter server ignored a command of another program. Allow only the hosts of the job.")
            return
        if host not in self.names or host == self.name:
            return
        if what == "stop":
            self.stop_requested.set()
        elif what in _KINDS:
            self._give_up(_KINDS[what](f"host {host} failed, so the job failed: {reason}"))

    def _tell(self, message: dict[str, str]) -> None:
        """Send a message to all hosts, with a timeout because a host can have disappeared."""

        def send() -> None:
            with contextlib.suppress(mx.MXNetError):
                self.store._send_command_to_servers(0, json.dumps(message))

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(_TELLING_SECONDS)

    def _give_up(self, error: JobError, tell: bool = False) -> None:
        """Report `error` and exit this process, because the training thread can be blocked forever."""
        with self._leaving:
            if tell:
                self._tell({"host": self.name, "kind": error.fault, "reason": error.message[:_LONGEST_REASON]})
            self._kill()
            self._fail(error)
            _exit_at_once(1)

    def _abandon(self, error: BaseException) -> None:
        """Send the other hosts the reason why this host exits, and make sure that it does not wait for them."""
        with self._leaving:
            self._quiet.set()
            if self.store is not None:
                kind = error.fault if isinstance(error, JobError) else PlatformError.fault
                reason = error.message if isinstance(error, JobError) else last_line(error)
                self._tell({"host": self.name, "kind": kind, "reason": reason[:_LONGEST_REASON]})
            self._kill()
            code = 0 if isinstance(error, JobCancelledError) else 1
            atexit.register(_exit_at_once, code)  # destroying the store waits for the other hosts

    def _part(self) -> None:
        """Leave the cluster at the same time as the other hosts: stop monitoring, then close the stores."""
        self.sum_integers(0)  # all hosts have finished their work
        self._quiet.set()
        self._watcher.join()
        finished = threading.Event()

        def part() -> None:
            for node in self._nodes:
                node.order("quiet")
                node.await_news("quiet", _LEAVING_SECONDS)
            self._sums.close()
            for node in self._nodes:
                node.leave()
            finished.set()

        threading.Thread(target=part, daemon=True).start()
        if not finished.wait(_LEAVING_SECONDS):
            LOG.warning("Another host did not leave the cluster within %d s. This host is complete.", _LEAVING_SECONDS)
            atexit.register(_exit_at_once, 0)  # destroying the store still waits
        self._kill()
        if self.first:
            time.sleep(_LAST_SECONDS)

    def _kill(self) -> None:
        for node in self._nodes:
            node.kill()


def _store_name(kvstore: str) -> str:
    """Return the distributed store that corresponds to the value of `_kvstore` for one host."""
    if "dist" in kvstore:
        return kvstore
    if kvstore == "nccl":
        LOG.warning("_kvstore=nccl supports one host only. The job uses dist_device_sync for distributed training.")
    return "dist_sync" if kvstore == "local" else "dist_device_sync"


def _exit_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
