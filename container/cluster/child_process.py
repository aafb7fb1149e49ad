"""Communication with a child process of distributed training."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

_LEAVING_SECONDS = 5
# log line of the ps-lite scheduler, at the highest log level, when a process has registered
_REGISTERED = re.compile(r"ADD_NODE.* node={ role=(?:worker|server),.*? ip=([\d.]+), port=(\d+)")
_NO_MESSAGE = "failed to parse string into protobuf"  # last line of ps-lite after a message of another program


class ChildProcess:
    """Child process that runs `container.cluster.parameter_server` in the role `server` or `scheduler`."""

    def __init__(self, role: str, hosts: int, settings: Mapping[str, str]) -> None:
        self._role = role
        self._news: queue.Queue[tuple[str, str]] = queue.Queue()
        self._last_line = ""
        self._registered: dict[tuple[str, int], None] = {}
        variables = {**os.environ, **settings, "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
        if role == "scheduler":
            variables["PS_VERBOSE"] = "2"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "container.cluster.parameter_server", role, str(hosts)],
            cwd=Path(__file__).parents[2],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        threading.Thread(target=self._read, name=f"read {role}", daemon=True).start()

    @property
    def registered(self) -> list[tuple[str, int]]:
        """Address and port of every process that registered with the scheduler."""
        return list(self._registered)

    def order(self, what: str) -> None:
        """Send a command to the process. It returns the same word after it has executed the command."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.write(what.encode() + b"\n")
            self._process.stdin.flush()

    def news(self) -> Iterator[tuple[str, str]]:
        """Yield the messages of the process since the last call: kind and text."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._news.get_nowait()

    def await_news(self, kind: str, seconds: float) -> None:
        """Wait until the process sends a message of this kind, or for `seconds`; other messages are dropped."""
        with contextlib.suppress(queue.Empty):
            while self._news.get(timeout=seconds)[0] != kind:
                pass

    def ending(self) -> str | None:
        """Return how the process exited, or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        how = f"by signal {-code}{' (out of memory?)' if code == -9 else ''}" if code < 0 else f"with status {code}"
        reason = f": {self._last_line}" if self._last_line else ""
        if _NO_MESSAGE in self._last_line:
            reason = ": a client that is not a host of this job sent data to its port. Allow only the hosts of the job"
        return f"the {self._role} process of this host exited {how}{reason}. Start the job again"

    def leave(self) -> None:
        """Wait until the process exits, after its work is done."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVING_SECONDS)

    def kill(self) -> None:
        """Kill the process if it still runs."""
        self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            text = line.decode(errors="replace").strip()
            if text.startswith("@"):
                kind, _, said = text[1:].partition(" ")
                self._news.put((kind, said))
            elif found := _REGISTERED.search(text):
                self._registered[found[1], int(found[2])] = None
            elif "Check failed" in text or "Error" in text:
                self._last_line = text
