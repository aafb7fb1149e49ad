"""Child processes of distributed training: parameter server and scheduler.

They only sum what the hosts send. What they have to tell their host's training is a line on stdout that begins with
`@`; when its end of their stdin closes, they end.
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

SILENCE_SECONDS = 10  # after which a host that sends no heartbeat is taken for dead
HEARTBEAT_SECONDS = 1
_LONGEST_MESSAGE = 4096
_FIRST_WORKER = 9  # ps-lite numbers the nodes: worker `rank` is 9 + 2 × rank


class Server(mx.kvstore.KVStoreServer):
    """MXNet's server without its way of receiving an optimizer, which unpickles what any peer sends."""

    def _controller(self) -> Callable[[int, bytes, object], None]:
        """Hand every command on as text; nothing in it is run."""

        def pass_on(head: int, body: bytes, _: object) -> None:
            tell("heard", body[:_LONGEST_MESSAGE].decode("ascii", "replace"))

        return pass_on


def tell(kind: str, text: str = "") -> None:
    """Write a line to the host's training."""
    line = " ".join(text.splitlines())
    os.write(1, f"@{kind} {line}\n".encode())  # one write: lines of two threads do not mix


def is_silent(handle: ctypes.c_void_p, node: int) -> bool:
    """Whether a node has sent no heartbeat for too long; of the scheduler (1) any node can tell, of others only it."""
    number = ctypes.c_int()
    check_call(_LIB.MXKVStoreGetNumDeadNode(handle, ctypes.c_int(node), ctypes.byref(number), SILENCE_SECONDS))
    return number.value > 0


def _attend(handle: ctypes.c_void_p, ranks: int) -> None:
    """Do what stdin says until it closes: `watch` the heartbeats of `ranks` workers, or be `quiet`."""
    watching, told = False, set()
    while True:
        if select.select([0], [], [], HEARTBEAT_SECONDS)[0]:
            words = os.read(0, 4096).decode().split()
            if not words:  # the training is gone
                os._exit(1)
            watching = words[-1] == "watch"
            tell(words[-1])
        for rank in range(ranks) if watching else ():
            if rank not in told and is_silent(handle, _FIRST_WORKER + 2 * rank):
                told.add(rank)
                tell("dead", str(rank))


def main() -> None:
    """Serve until the workers take their leave."""
    parser = argparse.ArgumentParser(description="Sum gradients for the hosts of a job.")
    parser.add_argument("role", choices=["server", "scheduler"])
    parser.add_argument("hosts", type=int)
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # are for the training, which ends this process
        signal.signal(number, signal.SIG_IGN)
    os.environ["DMLC_ROLE"] = arguments.role  # not before MXNet is imported: that would serve at once, and unwatched
    store = mx.kv.create("dist_sync")
    ranks = arguments.hosts if arguments.role == "scheduler" else 0
    threading.Thread(target=_attend, args=(store.handle, ranks), daemon=True).start()
    Server(store).run()
    sys.stdout.flush()
    os._exit(0)  # the store is gone by now: nothing may touch it again


if __name__ == "__main__":
    main()
