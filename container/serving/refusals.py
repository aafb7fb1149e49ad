"""What a request is told that is not answered for want of time, room or a listener."""

from __future__ import annotations

import math

from container.errors import RequestError


class Overloaded(RequestError):
    """503: the request is refused; `retry_after` is the seconds after which it may fare better."""

    def __init__(self, message: str, retry_after: float = 1) -> None:
        super().__init__(503, message)
        self.retry_after = max(1, math.ceil(retry_after))


class ClientLeft(RequestError):
    """499, as nginx has it: who asked has closed the connection; nobody reads this but the log."""

    def __init__(self) -> None:
        super().__init__(499, "the client has closed the connection")
