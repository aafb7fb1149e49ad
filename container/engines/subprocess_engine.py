"""An inference engine in a child process, which can be killed at any time.

An engine that has begun an image ends it: after OpenVINO's cancel() 9 million pixels went on for 160 s. A process can
be killed; and when memory runs out after all, the kernel is told to take this process, not the job.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import math
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np

from container.arrays import Array, Uint8Array
from container.engines.costs import estimate_loaded
from container.engines.protocol import Engine, ImageTooLargeError, Plan, Planner
from container.errors import AlgorithmError, JobCancelledError
from container.geometry.tiles import STRIDE

_SLICE_SECONDS = 0.1  # how soon a wait notices that it is no longer wanted
_ENDING_SLICES = 100  # a process closes its pipes before it is gone
_READY = struct.Struct("<QQ")  # classes; pixels of the largest image that fits
_IMAGE = struct.Struct("<QQ")  # height and width, before the image's bytes; the answer is the mask's bytes
_LARGEST = 2**28  # pixels
_HELD_BYTES = 8  # per pixel: image, labels, mask and their copies in the process that asks
_DECODING_BYTES = 32  # per pixel at most, there too, before the image is answered (VmHWM: 13, with 16 bits 28)
_FIXED_BYTES = 2 * 10**8  # interpreter and libraries


def base_memory(model: Path) -> int:
    """Return the bytes that such a process takes before its first image; `model` is its graph or parameter file."""
    return _FIXED_BYTES + estimate_loaded(model.stat().st_size)


def largest_image(planner: Planner, weights: int, memory: int) -> int:
    """Return the pixels of the largest image for which `memory` bytes do, with a graph of so many bytes in a child."""
    return _most_pixels(planner, max(0, memory - _FIXED_BYTES - estimate_loaded(weights)))


class SubprocessEngine:
    """The model at `source`, a graph or, for MXNet, a model directory, answering in a child process.

    An image may take about `memory` bytes, in both processes together. Once `until` is set the process is killed, and
    whoever waits gets Cancelled.
    """

    def __init__(self, source: Path, *, threads: int, memory: int, stop: threading.Event) -> None:
        self._command = [
            sys.executable,
            "-m",
            "container.engines.subprocess_engine",
            str(source),
            str(threads),
            str(memory),
        ]
        self._stop = stop
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = os.fdopen(os.memfd_create("errors"), "w+b")  # needs no directory that can be written to
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        assert self._process.stdin
        os.set_blocking(self._process.stdin.fileno(), False)
        self.num_classes, self.max_pixels = _READY.unpack(self._exchange(b"", _READY.size))

    def mask(self, image: Uint8Array) -> Array:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W).

        Raises MemoryError when the process was killed over it; the next image gets a new one.
        """
        if self._process is None:
            self._start()
        height, width = image.shape[:2]
        self._exchange(_IMAGE.pack(height, width), 0)
        answer = self._exchange(np.ascontiguousarray(image).data.cast("B"), height * width)
        return np.frombuffer(answer, np.uint8).reshape(height, width)

    def close(self) -> None:
        """End the process."""
        self._end()
        self._errors.close()

    def _exchange(self, question: bytes | memoryview, expected: int) -> bytearray:
        """Send a question and return the `expected` bytes of its answer."""
        assert self._process and self._process.stdin and self._process.stdout
        to_send, answer = memoryview(question), bytearray()
        writer, reader = self._process.stdin.fileno(), self._process.stdout.fileno()
        while to_send or len(answer) < expected:
            if self._stop.is_set():
                self._end()
                raise JobCancelledError
            readable, writable, _ = select.select([reader], [writer] if to_send else [], [], _SLICE_SECONDS)
            try:
                if writable:
                    to_send = to_send[os.write(writer, to_send[: 2**20]) :]
                piece = os.read(reader, min(2**20, expected - len(answer))) if readable else None
            except BrokenPipeError:
                piece = b""
            if piece == b"":
                raise self._failure()
            answer += piece or b""
        return answer

    def _failure(self) -> Exception:
        """Explain why the process has closed its pipes."""
        for _ in range(_ENDING_SLICES):
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self._process:
                    self._process.wait(_SLICE_SECONDS)
                break
            if self._stop.is_set():
                self._end()
                return JobCancelledError()
        code = self._process.poll() if self._process else None
        self._end()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if code == -signal.SIGKILL or (lines and ("MemoryError" in lines[-1] or "bad_alloc" in lines[-1])):
            return MemoryError("memory ran out")
        return AlgorithmError(f"the inference process failed: {lines[-1] if lines else f'exit status {code}'}")

    def _end(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


def _open(source: Path, threads: int) -> Engine:
    if source.is_dir():
        from container.engines.mxnet import MXNetEngine

        return MXNetEngine(source, "float32")
    from container.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(source, "float32", threads=threads)


def _plan(planner: Planner, height: int, width: int, memory: int) -> Plan:
    return planner.plan(height, width, memory - _HELD_BYTES * height * width)


def _most_pixels(planner: Planner, memory: int) -> int:
    """Return the pixels, partial cells in full, of the largest image that fits into `memory`."""

    def is_too_large(pixels: int) -> bool:
        rows = max(STRIDE, math.isqrt(pixels) // STRIDE * STRIDE)
        if planner.windows:
            rows = min(rows, planner.windows.side)  # a row of the largest windows takes most
        try:
            _plan(planner, rows, -(-pixels // rows), memory)
        except ImageTooLargeError:
            return True
        return False

    fitting = bisect.bisect_left(range(1, _LARGEST), True, key=is_too_large)
    return min(fitting, memory // _DECODING_BYTES)


def _answer(engine: Engine, memory: int, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer images until there are no more."""
    while len(header := questions.read(_IMAGE.size)) == _IMAGE.size:
        image = np.empty((*_IMAGE.unpack(header), 3), np.uint8)
        questions.readinto(image.data.cast("B"))  # type: ignore[attr-defined]
        try:
            plan = _plan(engine.planner, image.shape[0], image.shape[1], memory)
        except ImageTooLargeError as error:  # an image of few rows and many columns
            raise MemoryError(str(error)) from error
        answers.write(np.ascontiguousarray(engine.mask(image, plan)).data)
        answers.flush()


def main() -> None:
    """Answer what comes on stdin; an unusable model is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(description="Answer images from stdin; the other half of ChildEngine.")
    parser.add_argument("source", type=Path, help="a graph, or a model directory for MXNet")
    parser.add_argument("threads", type=int)
    parser.add_argument("memory", type=int, help="bytes that an image may take")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, which ends this process
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # nothing that a library prints gets among the answers
        engine = _open(arguments.source, arguments.threads)
        engine.warm()
        answers.write(_READY.pack(engine.num_classes, _most_pixels(engine.planner, arguments.memory)))
        answers.flush()
        _answer(engine, arguments.memory, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
