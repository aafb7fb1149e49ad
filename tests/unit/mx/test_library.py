from __future__ import annotations

import ctypes
import os

import pytest

from container.mx.library import select_library


def driver(monkeypatch: pytest.MonkeyPatch, present: bool) -> None:
    def load(name: str) -> object:
        assert name == "libcuda.so.1"
        if not present:
            raise OSError(f"{name}: cannot open shared object file")
        return object()

    monkeypatch.setattr(ctypes, "CDLL", load)


@pytest.mark.parametrize(
    ("beside", "present", "selected"),
    [("/opt/cpu.so", False, "/opt/cpu.so"), ("/opt/cpu.so", True, None), (None, False, None)],
)
def test_the_cpu_library_is_for_hosts_without_a_driver(
    monkeypatch: pytest.MonkeyPatch, beside: str | None, present: bool, selected: str | None
) -> None:
    monkeypatch.setattr(os, "environ", {"MXNET_CPU_LIBRARY": beside} if beside else {})
    driver(monkeypatch, present)
    select_library()
    assert os.environ.get("MXNET_LIBRARY_PATH") == selected


def test_a_library_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"MXNET_CPU_LIBRARY": "/opt/cpu.so", "MXNET_LIBRARY_PATH": "/mine.so"})
    driver(monkeypatch, False)
    select_library()
    assert os.environ["MXNET_LIBRARY_PATH"] == "/mine.so"
