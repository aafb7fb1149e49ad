"""Errors for requests that the server cannot process now."""

from __future__ import annotations

import math

from container.errors import RequestError


class ServiceUnavailableError(RequestError):
    """503: the request is refused; `retry_after` is the seconds after which it may fare better."""

    def __init__(self, message: str, retry_after: float = 1) -> None:
        super().__init__(503, message)
        self.retry_after = max(1, math.ceil(retry_after))


class ClientDisconnectedError(RequestError):
    """499, as nginx has it: who asked has closed the connection; nobody reads this but the log."""

    def __init__(self) -> None:
        super().__init__(499, "the client has closed the connection")
