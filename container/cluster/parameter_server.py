"""Child processes of distributed training: parameter server and scheduler.

They only add the arrays of the hosts. A message to the training process of their host is a line on stdout that starts
with `@`. When the training process closes their stdin, they exit.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

import mxnet as mx
from mxnet.base import _LIB, check_call

SILENCE_SECONDS = 10  # without a heartbeat, after which a host counts as failed
HEARTBEAT_SECONDS = 1
_LONGEST_MESSAGE = 4096
_FIRST_WORKER = 9  # node number in ps-lite: worker `rank` has the number 9 + 2 × rank


class Server(mx.kvstore.KVStoreServer):
    """MXNet server that does not receive an optimizer, because MXNet unpickles what any peer sends."""

    def _controller(self) -> Callable[[int, bytes, object], None]:
        """Forward every command as text; nothing in it is executed."""

        def pass_on(head: int, body: bytes, _: object) -> None:
            tell("heard", body[:_LONGEST_MESSAGE].decode("ascii", "replace"))

        return pass_on


def tell(kind: str, text: str = "") -> None:
    """Write a line to the training process of the host."""
    line = " ".join(text.splitlines())
    os.write(1, f"@{kind} {line}\n".encode())  # a single write, so that lines of two threads do not mix


def is_silent(handle: ctypes.c_void_p, node: int) -> bool:
    """Return whether a node has sent no heartbeat for `SILENCE_SECONDS`.

    Any node knows this about the scheduler (1). Only the scheduler knows it about the other nodes.
    """
    number = ctypes.c_int()
    check_call(_LIB.MXKVStoreGetNumDeadNode(handle, ctypes.c_int(node), ctypes.byref(number), SILENCE_SECONDS))
    return number.value > 0


def _attend(handle: ctypes.c_void_p, ranks: int) -> None:
    """Execute commands from stdin until it closes: `watch` the heartbeats of `ranks` workers, or be `quiet`."""
    watching, reported = False, set()
    while True:
        if select.select([0], [], [], HEARTBEAT_SECONDS)[0]:
            words = os.read(0, 4096).decode().split()
            if not words:  # the training process has exited
                os._exit(1)
            watching = words[-1] == "watch"
            tell(words[-1])
        for rank in range(ranks) if watching else ():
            if rank not in reported and is_silent(handle, _FIRST_WORKER + 2 * rank):
                reported.add(rank)
                tell("dead", str(rank))


def main() -> None:
    """Run the server or scheduler until the workers leave."""
    parser = argparse.ArgumentParser(description="Sum gradients for the hosts of a job.")
    parser.add_argument("role", choices=["server", "scheduler"])
    parser.add_argument("hosts", type=int)
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # the training process handles them, and ends this process
        signal.signal(number, signal.SIG_IGN)
    os.environ["DMLC_ROLE"] = arguments.role  # set after the import of MXNet, which otherwise starts a server itself
    store = mx.kv.create("dist_sync")
    ranks = arguments.hosts if arguments.role == "scheduler" else 0
    threading.Thread(target=_attend, args=(store.handle, ranks), daemon=True).start()
    Server(store).run()
    sys.stdout.flush()
    os._exit(0)  # the store is destroyed; an orderly exit would access it again


if __name__ == "__main__":
    main()
