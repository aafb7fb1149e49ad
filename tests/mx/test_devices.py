"""The devices of a job, and what is said of a GPU that does not compute."""

from __future__ import annotations

import logging
from typing import Any

import mxnet as mx
import pytest

from container.errors import ClientError, JobError, PlatformError
from container.mx.devices import choose_devices

ERROR = 'Traceback (most recent call last):\n  File "../src/x.cu", line 12\n{}'
CHECK = "MXNetError: Check failed: e == cudaSuccess: CUDA: "


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("no kernel image is available for execution on the device", ClientError, "MXNet 1.9.1 cannot run on this"),
        ("uncorrectable ECC error encountered", PlatformError, "The GPU or its driver is defective"),
        ("an error that nobody knows", PlatformError, "a GPU of this instance does not work"),
    ],
)
@pytest.mark.parametrize("place", ["num_gpus", "ones"])
def test_a_gpu_that_does_not_compute_is_explained_by_mxnets_last_line(
    monkeypatch: pytest.MonkeyPatch, text: str, kind: type[JobError], said: str, place: str
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise mx.MXNetError(ERROR.format(CHECK + text))

    monkeypatch.setattr(mx.context, "num_gpus", lambda: 1)
    monkeypatch.setattr(mx.context if place == "num_gpus" else mx.nd, place, fail)
    with pytest.raises(kind) as caught:
        choose_devices()
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith(CHECK + text)
    assert "Traceback" not in str(caught.value)


def test_without_a_gpu_the_cpu_trains_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 0)
    with caplog.at_level(logging.INFO):
        assert choose_devices() == [mx.cpu()]
    assert caplog.messages[0] == "Number of GPUs being used: 0"
