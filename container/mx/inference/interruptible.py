"""Forward passes that can be interrupted between two layers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import mxnet as mx
from mxnet import gluon

from container.errors import JobCancelledError

_SLICE_SECONDS = 0.1  # how soon a wait notices that it is no longer wanted


def wait_for(arrays: Sequence[mx.nd.NDArray], until: threading.Event) -> None:
    """Wait until the arrays are computed; raises Cancelled once `until` is set, without waiting any longer.

    A thread waits: the engine's own wait cannot be given up.
    """
    done = threading.Event()

    def wait() -> None:
        for array in arrays:
            with contextlib.suppress(mx.MXNetError):  # is raised again where the array is read
                array.wait_to_read()
        done.set()

    threading.Thread(target=wait, name="wait", daemon=True).start()
    while not done.wait(_SLICE_SECONDS):
        if until.is_set():
            raise JobCancelledError


@contextlib.contextmanager
def interruptible(network: gluon.HybridBlock, until: threading.Event, wanted: bool = True) -> Iterator[None]:
    """Compute the network layer by layer meanwhile; what it answers is the same.

    Calling it raises Cancelled before the next layer once `until` is set: then no more than one layer is under way.
    Without `wanted` nothing is different.
    """
    if not wanted:
        yield
        return
    blocks = list(_blocks(network))
    active = [block._active for block in blocks if isinstance(block, gluon.HybridBlock)]

    def check(block: gluon.Block, inputs: tuple[Any, ...]) -> None:
        if until.is_set():
            raise JobCancelledError
        wait_for([each for each in inputs if isinstance(each, mx.nd.NDArray)], until)

    hooks = [block.register_forward_pre_hook(check) for block in blocks]
    _set_active(blocks, [False] * len(active))
    try:
        yield
    finally:
        _set_active(blocks, active)
        for hook in hooks:
            hook.detach()


def _set_active(blocks: Sequence[gluon.Block], active: Sequence[bool]) -> None:
    """Say of each block that can be hybridized whether it is computed as one graph, which it keeps meanwhile."""
    hybrids = (block for block in blocks if isinstance(block, gluon.HybridBlock))
    for block, value in zip(hybrids, active, strict=True):
        block._active = value


def _blocks(block: gluon.Block) -> Iterator[gluon.Block]:
    yield block
    for child in block._children.values():
        yield from _blocks(child)
