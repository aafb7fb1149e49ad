"""Exception classes by cause, and the cleanup of their messages.

* `JobError`: ends a training job; its text is the failure reason.

  * `ClientError`: the user's input or configuration.
  * `AlgorithmError`: a defect of this program.
  * `PlatformError`: the machine or the service around it (a full disk, a pipe that never opened).

* `RequestError`: answers one request with an HTTP status and a one-line reason.
* `Cancelled`: ends what is no longer wanted; whoever has asked for it catches it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REASON_LENGTH = 1024  # how much of the failure file becomes the job's FailureReason

# What MXNet puts around the line that says something: a traceback's head and frames, a stack of addresses.
_FRAME = re.compile(r"\s*$|\s*Traceback \(most recent call last\)|\s*Stack trace|\s*\[bt\]|\s+File \"|\s*[\^~]+\s*$")


class JobError(Exception):
    """A training job cannot go on.

    `message` says cause and remedy in one line; `details` are the files, values or faults it is about, the worst
    first. The error's text is what follows its class in the failure file: the message, then as many details as there
    is room for, "and N more". Everything in it that is not printable is escaped. `fault` says whose fault it is, for
    the kinds of an error too.
    """

    fault = "JobError"

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = str(message)  # whatever it was given, the failure file must not miss it
        self.details = tuple(map(str, details))

    def __str__(self) -> str:
        prefix = f"{self.fault}: "
        return fit(self.message, self.details, REASON_LENGTH - len(prefix))

    @property
    def reason(self) -> str:
        """What the failure file says: whose fault it is, then the text."""
        return f"{self.fault}: {self}"


class ClientError(JobError):
    """The user's data or configuration is at fault."""

    fault = "ClientError"


class AlgorithmError(JobError):
    """This program is at fault."""

    fault = "AlgorithmError"


class PlatformError(JobError):
    """The machine or the platform is at fault."""

    fault = "PlatformError"


class RequestError(Exception):
    """A request that is answered with `status` and `message` and harms nobody else."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class JobCancelledError(Exception):
    """What was under way is no longer wanted: the job is being stopped, or the time for it is up."""


def printable(text: str) -> str:
    r"""Return `text` in one line that any stream takes: what is not printable is escaped.

    A byte of a file's name that is not UTF-8 is shown as itself: `stra\xdfe.jpg`.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries such a byte
        return f"\\x{code - 0xDC00:02x}"
    if 0x80 <= code <= 0xFF:  # \x80 would look like a byte
        return f"\\u{code:04x}"
    return character.encode("unicode_escape").decode("ascii")


def last_line(error: BaseException | str) -> str:
    """Return the line that says what went wrong.

    MXNet's errors and a child process's stderr begin with a traceback of their own; the reason is their last line.
    An exception that has no text, or cannot tell it, is called by its class.
    """
    name = "" if isinstance(error, str) else type(error).__name__
    try:
        text = str(error)
    except Exception:  # an exception's own __str__ may fail
        return name
    lines = [line for line in text.splitlines() if not _FRAME.match(line)]
    return printable(lines[-1].strip()) if lines else name


def fit(message: str, details: Sequence[str], size: int) -> str:
    """Join `message` and `details`, as many as `size` has room for, "and N more"; what is cut ends in an ellipsis.

    `size` counts bytes of UTF-8, of which a text has at least as many as characters: so it holds whichever of
    the two the platform counts, and cuts no character.
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
