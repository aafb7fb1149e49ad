"""Distributed training on the MXNet parameter server: join, watch, leave.

Every host runs the training and a server, the first one MXNet's scheduler too, each in a process of its own. Servers
only sum: the optimizer stays with the training, so all hosts hold equal weights.
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
from container.cluster.parameter_server import is_silent
from container.cluster.rendezvous import Rendezvous, gone
from container.data.batches import Batch
from container.data.hosts import Hosts
from container.environment import Environment
from container.errors import AlgorithmError, ClientError, JobCancelledError, JobError, PlatformError, last_line
from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)

_SCHEDULER = 1  # its number among ps-lite's nodes
_SLICE_SECONDS = 0.5
_LONGEST_REASON = 600  # characters of why a host has failed that the others are told
_TELLING_SECONDS = 3  # for the other hosts to hear why this one ends
_LEAVING_SECONDS = 20  # for all to take their leave: what is to be written is written by then
_LAST_SECONDS = 1  # that the first host outlives the others: local mode ends all when one has ended
_KINDS = {kind.fault: kind for kind in (ClientError, AlgorithmError, PlatformError)}


class Cluster(Hosts):
    """All hosts of a job. `requested` is set when this one is asked to stop.

    A host that fails tells the others, one that is gone without a word is missed: then this process ends, after
    `fail` has been called with the reason.
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
        self.asked = requested
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
        """Be one of the hosts meanwhile; whatever is raised within is told to the others."""
        try:
            self._join()
            yield self
            self._part()
        except BaseException as error:
            self._abandon(error)
            raise

    def total(self, *numbers: int) -> list[int]:
        """Sum each of `numbers` over all hosts."""
        return self._sums.of_integers(numbers)

    def send(self, data: Callable[[], bytes]) -> bytes:
        """Return the first host's `data`."""
        content = data() if self.first else b""
        (size,) = self.total(len(content))
        return self._sums.of_bytes(content, size)

    def agree(self) -> bool:
        """Say whether any host was asked to stop."""
        (asked,) = self.total(self.asked.is_set())
        if asked:
            self.stop.set()
        return bool(asked)

    def in_step(self, batches: Iterator[Batch], crop: int) -> Iterator[Batch]:
        """Yield as many batches as every other host, until none has any, or one was asked to stop."""
        group = -1
        while True:
            batch = next(batches, None)
            own = batch or Batch.empty(crop, group + 1)
            group = own.group
            asked, going, images, labeled = self.total(self.asked.is_set(), batch is not None, len(own), own.labeled)
            if asked:
                self.stop.set()
            if asked or not going:
                return
            if images:  # else no host could use any sample of this group
                yield dataclasses.replace(own, whole=(images, labeled))

    def sum(self, values: Float32Array) -> Float32Array:
        """Sum an array over all hosts."""
        return self._sums.of_array(values)

    def add(self, arrays: list[Any]) -> list[Any]:
        """Sum arrays of one number over devices and hosts."""
        return [self._sums.of_devices(arrays)]

    def _join(self) -> None:
        """Start this host's processes, and wait until those of all hosts have found each other."""
        began = time.monotonic()
        meeting = Rendezvous(self.names, self.name, self._job, self._environment, self.asked)
        self._nodes = meeting.nodes
        meeting.prepare()
        created = self._sums.make_store(_store_name(self._job.kvstore))
        meeting.wait(created.done)
        self.store = self._sums.store = created.result()
        if self.first:
            self._nodes[0].order("watch")
        self._watcher.start()
        self._hosts_by_rank = [rank for (rank,) in self.collect(self.store.rank)]
        LOG.info("all %d hosts have found each other in %.1f s", self.count, time.monotonic() - began)

    def _watch(self) -> None:
        """Tell the other hosts that this one is asked to stop, and leave when one of them has failed or is gone."""
        told = False
        while not self._quiet.wait(_SLICE_SECONDS):
            if self.asked.is_set() and not told:
                told = True
                self._tell({"host": self.name, "kind": "stop", "reason": ""})
            for node in self._nodes:
                for kind, text in node.news():
                    self._hear(kind, text)
                if reason := node.ending():
                    self._give_up(PlatformError(reason), tell=True)
            if not self.first and is_silent(self.store.handle, _SCHEDULER):
                self._give_up(gone(self.names[0]))

    def _hear(self, kind: str, text: str) -> None:
        """Take in what one of this host's processes says."""
        if kind == "dead":
            self._give_up(gone(self.names[self._hosts_by_rank.index(int(text))]), tell=True)
        if kind != "heard":
            return
        try:
            message = json.loads(text)
            host, what, reason = (str(message[key]) for key in ("host", "kind", "reason"))
        except (ValueError, KeyError, TypeError, AttributeError):
            LOG.warning("a command that is none of this program's came to the parameter server, and is passed over")
            return
        if host not in self.names or host == self.name:
            return
        if what == "stop":
            self.asked.set()
        elif what in _KINDS:
            self._give_up(_KINDS[what](f"host {host} has failed, which ends the job: {reason}"))

    def _tell(self, message: dict[str, str]) -> None:
        """Send a message to all hosts; one that is gone is not waited for."""

        def send() -> None:
            with contextlib.suppress(mx.MXNetError):
                self.store._send_command_to_servers(0, json.dumps(message))

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(_TELLING_SECONDS)

    def _give_up(self, error: JobError, tell: bool = False) -> None:
        """End this host's part of the job for `error`; the training's own thread may be waiting for ever."""
        with self._leaving:
            if tell:
                self._tell({"host": self.name, "kind": error.fault, "reason": error.message[:_LONGEST_REASON]})
            self._kill()
            self._fail(error)
            _exit_at_once(1)

    def _abandon(self, error: BaseException) -> None:
        """Tell the others why this host ends, and see to it that nothing waits for them."""
        with self._leaving:
            self._quiet.set()
            if self.store is not None:
                kind = error.fault if isinstance(error, JobError) else PlatformError.fault
                reason = error.message if isinstance(error, JobError) else last_line(error)
                self._tell({"host": self.name, "kind": kind, "reason": reason[:_LONGEST_REASON]})
            self._kill()
            code = 0 if isinstance(error, JobCancelledError) else 1
            atexit.register(_exit_at_once, code)  # the store's end would wait for the others

    def _part(self) -> None:
        """Take leave together: nobody is missed any more, then the stores go, the first host's last."""
        self.total(0)  # all have done their work
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
            LOG.warning("a host did not take its leave; all that this one had to do is done")
            atexit.register(_exit_at_once, 0)  # the store's end still waits
        self._kill()
        if self.first:
            time.sleep(_LAST_SECONDS)

    def _kill(self) -> None:
        for node in self._nodes:
            node.kill()


def _store_name(kvstore: str) -> str:
    """Return the distributed store that does on several hosts what `_kvstore` says of one."""
    if "dist" in kvstore:
        return kvstore
    if kvstore == "nccl":
        LOG.warning("_kvstore=nccl is for one host: dist_device_sync sums on the devices, then over the hosts")
    return "dist_sync" if kvstore == "local" else "dist_device_sync"


def _exit_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
