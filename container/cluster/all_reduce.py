"""Sums of counts, losses, and bytes over all hosts; `mx/trainer.py` sums the gradients.

All hosts must call each method at the same point. Servers add in float32, which represents 24-bit integers exactly.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from container.arrays import Float32Array

_Answer = TypeVar("_Answer")

_KEYS = 1_000_000  # first key of this class; the parameters of the optimizer have lower keys
_DIGIT_BITS = 16  # 256 hosts can add digits of this size exactly
_DIGITS = 4
_BYTES_A_NUMBER = 3
_PLACES = np.array([1, 2**8, 2**16], np.float32)
_PIECE_BYTES = _BYTES_A_NUMBER * 2**20


class AllReduce:
    """Sums of one host over all hosts; `store` is the key-value store of MXNet, or None before it exists."""

    def __init__(self) -> None:
        self.store: Any = None
        self._keys: dict[tuple[Any, ...], int] = {}
        self._added: mx.nd.NDArray | None = None
        self._caller = _Caller()

    def make_store(self, kind: str) -> Future[Any]:
        """Start to create the store, which waits for all hosts."""
        return self._caller.submit(lambda: mx.kv.create(kind))

    def of_integers(self, numbers: Sequence[int]) -> list[int]:
        """Sum each of `numbers`, from 0 to 2**63 − 1."""
        values = np.array(numbers, np.uint64)
        mask = np.uint64(2**_DIGIT_BITS - 1)
        digits = [(values >> np.uint64(_DIGIT_BITS * place)) & mask for place in range(_DIGITS)]
        sums = self.of_array(np.concatenate(digits).astype(np.float32))
        places = sums.astype(np.int64).reshape(_DIGITS, -1)
        return [sum(int(digit) << _DIGIT_BITS * place for place, digit in enumerate(each)) for each in places.T]

    def of_bytes(self, content: bytes, size: int) -> bytes:
        """Return the `size` bytes of the only host whose content is not empty."""
        pieces = []
        for start in range(0, size, _PIECE_BYTES):
            piece = np.zeros(_PIECE_BYTES, np.uint8)
            part = content[start : start + _PIECE_BYTES]
            piece[: len(part)] = np.frombuffer(part, np.uint8)
            sums = self.of_array(piece.reshape(-1, _BYTES_A_NUMBER) @ _PLACES).astype("<u4")
            pieces.append(sums.view(np.uint8).reshape(-1, 4)[:, :_BYTES_A_NUMBER].tobytes())
        return b"".join(pieces)[:size]

    def of_array(self, values: Float32Array) -> Float32Array:
        """Sum an array in a separate thread, so that this thread can process signals."""
        return self._caller.submit(lambda: self.at_once(values)).result()

    def at_once(self, values: Float32Array) -> Float32Array:
        """Sum an array in the calling thread."""
        array = mx.nd.array(values, dtype=values.dtype)
        result = mx.nd.empty(array.shape, dtype=array.dtype)
        self.store.pushpull(self._key("sum", array), array, out=result)
        total: Float32Array = result.asnumpy()
        return total

    def of_devices(self, arrays: list[Any]) -> Any:
        """Sum arrays with one number over devices and hosts, without waiting for the result."""
        if self._added is not None:  # the server counts a second array of a host as the array of another host
            self._added.wait_to_read()
        self._added = mx.nd.empty(arrays[0].shape, dtype=arrays[0].dtype)
        self.store.pushpull(self._key("add", arrays[0]), arrays, out=self._added)
        return self._added

    def close(self) -> None:
        """Close the store; waits for all hosts."""
        self.at_once(np.zeros(1, np.float32))
        mx.nd.waitall()
        handle, self.store.handle = self.store.handle, None
        check_call(_LIB.MXKVStoreFree(handle))

    def _key(self, use: str, like: mx.nd.NDArray) -> int:
        """Return the store key for arrays of one kind. All hosts must request the kinds in the same order."""
        kind = (use, like.shape, like.dtype)
        if kind not in self._keys:
            self._keys[kind] = _KEYS + len(self._keys)
            self.store.init(self._keys[kind], mx.nd.zeros(like.shape, dtype=like.dtype))
        return self._keys[kind]


class _Caller(threading.Thread):
    """Thread that executes calls in sequence, so that the waiting thread can process signals.

    It is a daemon thread, so the process can exit during a call.
    """

    def __init__(self) -> None:
        super().__init__(name="call", daemon=True)
        self._calls: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue()
        self.start()

    def submit(self, call: Callable[[], _Answer]) -> Future[_Answer]:
        future: Future[_Answer] = Future()
        self._calls.put((call, future))
        return future

    def run(self) -> None:
        while True:
            call, future = self._calls.get()
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
