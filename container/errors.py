"""The program's own exceptions, by whose fault they are.

* `JobError`: ends a training job; its text is the failure reason.

  * `ClientError`: the user's input or configuration.
  * `AlgorithmError`: a defect of this program.
  * `PlatformError`: the machine or the service around it (a full disk, a pipe that never opened).

* `RequestError`: answers one request with an HTTP status and a one-line reason.
* `Cancelled`: ends what is no longer wanted; whoever has asked for it catches it.
"""


class JobError(Exception):
    """A training job cannot go on; the first line says what to do about it."""


class ClientError(JobError):
    """The user's data or configuration is at fault."""


class AlgorithmError(JobError):
    """This program is at fault."""


class PlatformError(JobError):
    """The machine or the platform is at fault."""


class RequestError(Exception):
    """A request that is answered with `status` and `message` and harms nobody else."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Cancelled(Exception):
    """What was under way is no longer wanted: the job is being stopped, or the time for it is up."""
