"""Exception classes by cause, and the cleanup of their messages.

* `JobError`: a training job fails; the text is the failure reason.

  * `ClientError`: caused by the input or configuration of the user.
  * `AlgorithmError`: caused by a defect of this program.
  * `PlatformError`: caused by the machine or the service (a full disk, a pipe that never opened).

* `RequestError`: a request fails with an HTTP status and a one-line reason.
* `JobCancelledError`: an operation was cancelled; the caller that cancelled it catches the error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REASON_LENGTH = 1024  # bytes of the failure file that become FailureReason

# Lines of MXNet errors without information: traceback header and frames, stack of addresses.
_FRAME = re.compile(r"\s*$|\s*Traceback \(most recent call last\)|\s*Stack trace|\s*\[bt\]|\s+File \"|\s*[\^~]+\s*$")


class JobError(Exception):
    """A training job cannot continue.

    `message` contains the cause and the fix in one line. `details` are the affected files, values, or errors, the most
    important first. The text of the error follows its class in the failure file: the message, then as many details as
    fit, and "and N more". Characters that are not printable are escaped. `fault` is the class name in messages.
    """

    fault = "JobError"

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = str(message)  # any object is accepted, because the failure file must contain a text
        self.details = tuple(map(str, details))

    def __str__(self) -> str:
        prefix = f"{self.fault}: "
        return fit(self.message, self.details, REASON_LENGTH - len(prefix))

    @property
    def reason(self) -> str:
        """Text of the failure file: the class, then the message and the details."""
        return f"{self.fault}: {self}"


class ClientError(JobError):
    """Error caused by the data or the configuration of the user."""

    fault = "ClientError"


class AlgorithmError(JobError):
    """Error caused by this program."""

    fault = "AlgorithmError"


class PlatformError(JobError):
    """Error caused by the machine or the service."""

    fault = "PlatformError"


class RequestError(Exception):
    """A request failed; the response has `status` and `message`, and other requests are not affected."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class JobCancelledError(Exception):
    """An operation was cancelled, because the job was stopped or a time limit was reached."""


def printable(text: str) -> str:
    r"""Return `text` as one line that any stream accepts: characters that are not printable are escaped.

    A byte of a file name that is not UTF-8 is shown in hexadecimal: `stra\xdfe.jpg`.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python represents such a byte by these code points
        return f"\\x{code - 0xDC00:02x}"
    if 0x80 <= code <= 0xFF:  # \x80 looks like a byte
        return f"\\u{code:04x}"
    return character.encode("unicode_escape").decode("ascii")


def shorten_list(texts: Sequence[str], most: int) -> str:
    """Join the first `most` texts, with the number of the others: `a, b and 3 more`."""
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if texts[most:] else "")


def last_line(error: BaseException | str) -> str:
    """Return the line of an error text that contains the reason.

    MXNet errors and the stderr of a child process start with a traceback, and their last line contains the reason. For
    an exception without a text, or whose `__str__` fails, the class name is returned.
    """
    name = "" if isinstance(error, str) else type(error).__name__
    try:
        text = str(error)
    except Exception:  # the __str__ of an exception can fail
        return name
    lines = [line for line in text.splitlines() if not _FRAME.match(line)]
    return printable(lines[-1].strip()) if lines else name


def fit(message: str, details: Sequence[str], size: int) -> str:
    """Join `message` and as many `details` as fit in `size`, with "and N more"; a shortened text ends in an ellipsis.

    `size` is the number of UTF-8 bytes, and a text has at least as many bytes as characters. So the limit holds if
    SageMaker AI counts bytes or characters, and no character is split.
    """
    message = printable(message)
    text = message
    for number, detail in enumerate(details):
        longer = text + (": " if not number else "; ") + printable(detail)
        if _size(longer + _more(len(details) - number - 1)) > size:
            break
        text = longer
    else:
        return _cut(text, size)
    if number:
        return text + _more(len(details) - number)
    more = _more(len(details) - 1)
    return _cut(f"{message}: {printable(details[0])}", size - _size(more)) + more


def _more(number: int) -> str:
    return f"; and {number} more" if number else ""


def _size(text: str) -> int:
    return len(text.encode())


def _cut(text: str, size: int) -> str:
    ellipsis = "…"
    if _size(text) <= size:
        return text
    return text.encode()[: size - _size(ellipsis)].decode(errors="ignore") + ellipsis
