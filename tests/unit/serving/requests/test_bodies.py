"""Request bodies that arrive too slowly, read with gunicorn's own parser."""

from __future__ import annotations

import socket

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.http.message import Request as GunicornRequest  # type: ignore[import-untyped]
from gunicorn.http.unreader import SocketUnreader  # type: ignore[import-untyped]
from werkzeug.wrappers import Request

from container.errors import RequestError
from container.serving.requests.bodies import read_body
from container.serving.requests.deadline import RequestDeadline


@pytest.mark.parametrize("sent", ["", "1", "1\r", "1\r\n", "1\r\na", "1\r\na\r", "1\r\na\r\n"])
def test_a_chunked_body_that_is_too_slow_gets_408_wherever_it_is_cut(sent: str) -> None:
    client, server = socket.socketpair()
    with client, server:
        client.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + sent.encode())
        parsed = GunicornRequest(Config(), SocketUnreader(server), ("127.0.0.1", 1))
        environ = {"wsgi.input": parsed.body, "wsgi.input_terminated": True, "gunicorn.socket": server}
        with pytest.raises(RequestError, match=r"the body did not arrive (within|before the timeout)") as error:
            read_body(Request(environ), 100, lambda size: None, RequestDeadline(0.2))
    assert error.value.status == 408
