"""An inference engine in a child process, which can be killed at any time.

An engine cannot stop during an image: after cancel() of OpenVINO, inference on 9 million pixels continued for 160 s. A
process can be killed. If memory runs out, the kernel kills this process instead of the job.
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

_POLL_SECONDS = 0.1
_EXIT_POLLS = 100  # a process closes its pipes before it exits
_READY = struct.Struct("<QQ")  # classes; pixels of the largest image that fits
_IMAGE = struct.Struct("<QQ")  # height and width, before the bytes of the image; the response is the bytes of the mask
_LARGEST = 2**28  # pixels
_HELD_BYTES = 8  # per pixel: image, labels, mask, and their copies in the parent process
_DECODING_BYTES = 32  # per pixel at most in the parent process, before inference (VmHWM: 13; 28 with 16 bits)
_FIXED_BYTES = 2 * 10**8  # interpreter and libraries


def base_memory(model: Path) -> int:
    """Return the bytes of a child process before its first image; `model` is its ONNX model or parameter file."""
    return _FIXED_BYTES + estimate_loaded(model.stat().st_size)


def largest_image(planner: Planner, weights: int, memory: int) -> int:
    """Return the pixels of the largest image for `memory` bytes, with an ONNX model of `weights` bytes in a child."""
    return _most_pixels(planner, max(0, memory - _FIXED_BYTES - estimate_loaded(weights)))


class SubprocessEngine:
    """Inference in a child process with the model at `source`: an ONNX model, or a model directory for MXNet.

    An image can use about `memory` bytes in both processes in total. When `stop` is set, the process is killed, and
    callers that wait raise JobCancelledError.
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
        self._errors = os.fdopen(os.memfd_create("errors"), "w+b")  # needs no writable directory
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
        """Return the most likely class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W).

        Raises MemoryError if memory ran out in the process; the next image starts a new process.
        """
        if self._process is None:
            self._start()
        height, width = image.shape[:2]
        self._exchange(_IMAGE.pack(height, width), 0)
        mask = self._exchange(np.ascontiguousarray(image).data.cast("B"), height * width)
        return np.frombuffer(mask, np.uint8).reshape(height, width)

    def close(self) -> None:
        """Kill the process."""
        self._kill()
        self._errors.close()

    def _exchange(self, message: bytes | memoryview, expected: int) -> bytearray:
        """Send a message and return the `expected` bytes of the response."""
        assert self._process and self._process.stdin and self._process.stdout
        to_send, response = memoryview(message), bytearray()
        writer, reader = self._process.stdin.fileno(), self._process.stdout.fileno()
        while to_send or len(response) < expected:
            if self._stop.is_set():
                self._kill()
                raise JobCancelledError
            readable, writable, _ = select.select([reader], [writer] if to_send else [], [], _POLL_SECONDS)
            try:
                if writable:
                    to_send = to_send[os.write(writer, to_send[: 2**20]) :]
                piece = os.read(reader, min(2**20, expected - len(response))) if readable else None
            except BrokenPipeError:
                piece = b""
            if piece == b"":
                raise self._failure()
            response += piece or b""
        return response

    def _failure(self) -> Exception:
        """Return the error for a process that closed its pipes."""
        for _ in range(_EXIT_POLLS):
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self._process:
                    self._process.wait(_POLL_SECONDS)
                break
            if self._stop.is_set():
                self._kill()
                return JobCancelledError()
        code = self._process.poll() if self._process else None
        self._kill()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if code == -signal.SIGKILL or (lines and ("MemoryError" in lines[-1] or "bad_alloc" in lines[-1])):
            return MemoryError("memory ran out")
        return AlgorithmError(f"the inference process failed: {lines[-1] if lines else f'exit status {code}'}")

    def _kill(self) -> None:
        """Kill the process if it runs."""
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
    """Return the pixels of the largest image that fits in `memory`; partial cells count as complete."""

    def is_too_large(pixels: int) -> bool:
        rows = max(STRIDE, math.isqrt(pixels) // STRIDE * STRIDE)
        if planner.windows:
            rows = min(rows, planner.windows.side)  # a row of the largest windows needs the most memory
        try:
            _plan(planner, rows, -(-pixels // rows), memory)
        except ImageTooLargeError:
            return True
        return False

    fitting = bisect.bisect_left(range(1, _LARGEST), True, key=is_too_large)
    return min(fitting, memory // _DECODING_BYTES)


def _process_images(engine: Engine, memory: int, images: BinaryIO, masks: BinaryIO) -> None:
    """Write the mask of every image until the input ends."""
    while len(header := images.read(_IMAGE.size)) == _IMAGE.size:
        image = np.empty((*_IMAGE.unpack(header), 3), np.uint8)
        images.readinto(image.data.cast("B"))  # type: ignore[attr-defined]
        try:
            plan = _plan(engine.planner, image.shape[0], image.shape[1], memory)
        except ImageTooLargeError as error:  # an image of few rows and many columns
            raise MemoryError(str(error)) from error
        masks.write(np.ascontiguousarray(engine.mask(image, plan)).data)
        masks.flush()


def main() -> None:
    """Read images from stdin and write masks to stdout; an unusable model is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(
        description="Write a mask for each image from stdin. SubprocessEngine starts this program."
    )
    parser.add_argument("source", type=Path, help="an ONNX model, or a model directory for MXNet")
    parser.add_argument("threads", type=int)
    parser.add_argument("memory", type=int, help="bytes that an image can use")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job handles Ctrl-C and kills this process
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with os.fdopen(os.dup(1), "wb") as output:
        os.dup2(2, 1)  # output of libraries must not mix with the masks
        engine = _open(arguments.source, arguments.threads)
        engine.warm()
        output.write(_READY.pack(engine.num_classes, _most_pixels(engine.planner, arguments.memory)))
        output.flush()
        _process_images(engine, arguments.memory, sys.stdin.buffer, output)


if __name__ == "__main__":
    main()
