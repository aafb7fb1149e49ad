"""Forward passes that can be interrupted between two layers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import mxnet as mx
from mxnet import gluon

from container.errors import JobCancelledError

_POLL_SECONDS = 0.1


def wait_for(arrays: Sequence[mx.nd.NDArray], stop: threading.Event) -> None:
    """Wait until the arrays are computed; raises JobCancelledError immediately when `stop` is set.

    A thread waits, because the wait of the MXNet engine cannot be interrupted.
    """
    done = threading.Event()

    def wait() -> None:
        for array in arrays:
            with contextlib.suppress(mx.MXNetError):  # raised again when the array is read
                array.wait_to_read()
        done.set()

    threading.Thread(target=wait, name="wait", daemon=True).start()
    while not done.wait(_POLL_SECONDS):
        if stop.is_set():
            raise JobCancelledError


@contextlib.contextmanager
def interruptible(network: gluon.HybridBlock, stop: threading.Event, enabled: bool = True) -> Iterator[None]:
    """Run the model layer by layer within the context, with the same output.

    When `stop` is set, a forward pass raises JobCancelledError before the next layer, so that at most one layer runs.
    If `enabled` is False, nothing changes.
    """
    if not enabled:
        yield
        return
    blocks = list(_blocks(network))
    active = [block._active for block in blocks if isinstance(block, gluon.HybridBlock)]

    def check(block: gluon.Block, inputs: tuple[Any, ...]) -> None:
        if stop.is_set():
            raise JobCancelledError
        wait_for([each for each in inputs if isinstance(each, mx.nd.NDArray)], stop)

    hooks = [block.register_forward_pre_hook(check) for block in blocks]
    _set_active(blocks, [False] * len(active))
    try:
        yield
    finally:
        _set_active(blocks, active)
        for hook in hooks:
            hook.detach()


def _set_active(blocks: Sequence[gluon.Block], active: Sequence[bool]) -> None:
    """Set for each hybrid block whether it runs as one graph; the blocks retain their graphs."""
    hybrids = (block for block in blocks if isinstance(block, gluon.HybridBlock))
    for block, value in zip(hybrids, active, strict=True):
        block._active = value


def _blocks(block: gluon.Block) -> Iterator[gluon.Block]:
    yield block
    for child in block._children.values():
        yield from _blocks(child)
