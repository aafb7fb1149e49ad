"""gunicorn's worker of greenlets: a connection costs no thread, its start refuses nobody, its stop loses nobody.

One thread of the process talks to everybody, in greenlets; what computes runs on native threads beside it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import time
from typing import Any

import gevent  # type: ignore[import-untyped]
from gevent import monkey
from gevent.lock import Semaphore  # type: ignore[import-untyped]
from gevent.pool import Pool  # type: ignore[import-untyped]
from gevent.socket import SHUT_RD, SHUT_WR, socket, wait_read  # type: ignore[import-untyped]
from gunicorn import http, util  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.base_async import AsyncWorker  # type: ignore[import-untyped]

from container.serving import app, metrics
from container.serving.bodies import STALL_SECONDS
from container.serving.greenlets import NativeThreads
from container.serving.request_log import clean

_STATUSES = (
    (errors.LimitRequestLine, 414, "URI Too Long"),
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large"),
    (errors.ExpectationFailed, 417, "Expectation Failed"),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented"),
    (errors.ParseException, 400, "Bad Request"),
)

_LINGER_SECONDS = 1
_FAREWELL_SECONDS = 4  # after SIGTERM, for whoever has connected to say what they want
_ACCEPTED_AT_ONCE = 64  # or whoever asks for /ping would stand behind all who have nothing to say
_MISSED_SECONDS = 3  # after which a worker that does not run is not waited for
_FRESH_SECONDS = 0.2  # for which a new connection counts as a request: by then its headers have come

_THREADS = 64  # at most; as many as work at once, and one that loads a model

# By worker's number, shared by all processes: whether its model is loaded, how many requests it has, and the second, of
# 256, in which it was last seen to run.
_ready = mmap.mmap(-1, mmap.PAGESIZE)
_held = mmap.mmap(-1, mmap.PAGESIZE)
_seen = mmap.mmap(-1, mmap.PAGESIZE)


class Worker(AsyncWorker):
    """Accepts where it can serve: as long as another worker has a model, or fewer requests, it does not."""

    def take_number(self, number: int) -> None:
        """Be the worker of this number, in gunicorn's master; the one that had it before is gone."""
        self.number = number
        _ready[number] = _held[number] = 0
        self._invocations = 0
        self._silent: set[Any] = set()  # connections that wait for a request
        self._fresh: dict[Any, float] = {}  # when each connection came that has not asked for anything yet

    def init_process(self) -> None:
        """Make blocking calls cooperative, in this process only, then run."""
        monkey.patch_socket(dns=False)
        monkey.patch_thread(logging=False)
        gevent.get_hub()
        if os.environ.get(metrics.DIRECTORY_VARIABLE):
            metrics.share_with_other_workers(self.number)
        super().init_process()

    def load_wsgi(self) -> None:
        """Create the application, which goes on loading its model."""
        self._turnstile = _Turnstile()
        self.wsgi = app.load(NativeThreads(_THREADS), self.number, self._note_held, self._turnstile.take_turn)
        if model := self.wsgi.extensions.get("model"):
            model.add_done_callback(self._note_ready)
        else:  # a multi-model endpoint loads what it is asked to
            _ready[self.number] = 1

    def run(self) -> None:
        """Serve until SIGTERM, then answer whoever has connected by then."""
        crowd = Pool(self.worker_connections)
        listeners = [socket(s.FAMILY, fileno=os.dup(s.sock.fileno())) for s in self.sockets]
        for listener in listeners:
            listener.settimeout(0)
        doors = [gevent.spawn(self._open_door, listener, crowd) for listener in listeners]
        while self.alive:
            self._tick()
        _ready[self.number] = 0  # where only this worker ends, whoever comes is another's
        gevent.killall(doors)
        for listener in listeners:
            while self._may_accept() and self._accept(listener, crowd):
                gevent.sleep(0)
            listener.close()
        for listener in self.sockets:
            listener.close()
        start = time.monotonic()
        while len(crowd) and time.monotonic() < start + self.cfg.graceful_timeout:
            if time.monotonic() > start + _FAREWELL_SECONDS:
                self._dismiss_silent()
            self._tick()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Answer the requests of one connection, until it is silent for too long."""
        request, heard = None, _Heard(client)
        try:
            parser = http.get_parser(self.cfg, heard, addr)
            while True:
                client.settimeout(STALL_SECONDS)
                request, before = None, heard.count
                self._silent.add(client)
                with gevent.Timeout(STALL_SECONDS - 1, False):
                    request = next(parser)
                self._silent.discard(client)
                if request is None:
                    if heard.count > before:
                        _refuse(client, 408, "Request Timeout", f"no headers within {STALL_SECONDS - 1} s")
                    break
                if not _ready[self.number]:
                    request.force_close()  # the next request may find another worker that is ready
                if request.path != "/ping":
                    self._turnstile.take_turn()
                self._fresh.pop(client, None)
                self._publish()
                self.handle_request(listener.getsockname(), request, client, addr)
        except (errors.NoMoreData, StopIteration):
            pass
        except OSError as error:
            self.log.debug("a connection broke: %s", error)
        except Exception as error:
            self.handle_error(request, client, addr, error)
        finally:
            self._fresh.pop(client, None)
            self._silent.discard(client)
            util.close(client)

    def _dismiss_silent(self) -> None:
        """Let go who has asked for nothing yet."""
        for client in self._silent:
            with contextlib.suppress(OSError):
                client.shutdown(SHUT_RD)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no request, or a defect, with one line of JSON."""
        for kind, status, reason in _STATUSES:
            if isinstance(exc, kind):
                self.log.warning("%s sent no request: %s", addr[0], clean(str(exc)))
                _refuse(client, status, reason, clean(str(exc)))
                return
        self.log.error("a request failed", exc_info=exc)
        _refuse(client, 500, "Internal Server Error", "internal error; the endpoint's log has the details")

    def handle_quit(self, sig: Any, frame: Any) -> None:
        """End at once, in a greenlet that may block."""
        gevent.spawn(super().handle_quit, sig, frame)

    def _tick(self) -> None:
        if self.ppid != os.getppid():
            self.log.info("the server's first process has ended: so does this one")
            self.alive = False
        self.notify()
        _seen[self.number] = int(time.monotonic()) % 256
        self._publish()
        self.wsgi.extensions["metrics"].measure()
        gevent.sleep(0.2)

    def _open_door(self, listener: socket, crowd: Pool) -> None:
        while True:
            wait_read(listener.fileno())
            if not self._may_accept():
                gevent.sleep(0.01)
                continue
            for _ in range(_ACCEPTED_AT_ONCE):
                if not self._accept(listener, crowd) or not self._may_accept():
                    break
            gevent.sleep(0)

    def _accept(self, listener: socket, crowd: Pool) -> bool:
        """Let in one who stands before the door; says whether there was anyone."""
        try:
            client, addr = listener.accept()
        except OSError:  # another worker has been quicker, or whoever stood there has left
            return False
        client.settimeout(STALL_SECONDS)
        self._fresh[client] = time.monotonic()
        self._publish()
        crowd.spawn(self.handle, listener, client, addr)
        return True

    def _may_accept(self) -> bool:
        now = int(time.monotonic())
        others = [number for number in range(self.cfg.workers) if number != self.number and _ready[number]]
        others = [number for number in others if (now - _seen[number]) % 256 <= _MISSED_SECONDS]
        if not _ready[self.number]:
            return not others
        self._publish()
        return all(_held[self.number] <= _held[other] for other in others)

    def _note_held(self, count: int) -> None:
        self._invocations = count
        self._publish()

    def _publish(self) -> None:
        """Tell the other workers how many invocations there are, and how many likely come next."""
        since = time.monotonic() - _FRESH_SECONDS
        fresh = sum(came > since for came in self._fresh.values()) if self.cfg.workers > 1 else 0
        _held[self.number] = min(self._invocations + fresh, 255)

    def _note_ready(self, _: Any) -> None:
        _ready[self.number] = 1


class _Turnstile:
    """Lets greenlets go on one after the other, with a look at who else has something to say in between.

    Of a thousand connections that stall together, each costs a millisecond: whoever asks for /ping would wait for all.
    """

    def __init__(self) -> None:
        self._lock = Semaphore()

    def take_turn(self) -> None:
        """Wait until it is this greenlet's turn."""
        with self._lock:
            gevent.sleep(0)


class _Heard:
    """A connection for gunicorn's parser, which counts what has come."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.count = 0

    def recv(self, size: int) -> bytes:
        data: bytes = self._connection.recv(size)
        self.count += len(data)
        return data


def _refuse(client: Any, status: int, reason: str, message: str) -> None:
    content = json.dumps({"error": message}) + "\n"
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with contextlib.suppress(OSError):
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
        client.shutdown(SHUT_WR)
        with gevent.Timeout(_LINGER_SECONDS, False):  # what is not read when the connection is closed breaks the answer
            while client.recv(2**16):
                pass
