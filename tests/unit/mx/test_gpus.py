from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from container.mx.gpus import select_gpus, visible_gpus

# Implements the functions of cuda.h that are used. The numbers of errors and attributes are those of CUDA 13.0.
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int capability(int device, int *major, int *minor) {
    const char *text = getenv("FAKE_CAPABILITIES");
    for (int i = 0; text && *text; i++) {
        if (i == device)
            return sscanf(text, "%d.%d", major, minor) == 2;
        text = strchr(text, ' ');
        text = text ? text + 1 : "";
    }
    return 0;
}
int cuInit(unsigned flags) {
    const char *status = getenv("FAKE_STATUS");
    if (status && !strcmp(status, "crash"))
        abort();
    return status ? atoi(status) : 0;
}
int cuDeviceGetCount(int *count) {
    int major, minor;
    for (*count = 0; capability(*count, &major, &minor); ++*count);
    return 0;
}
int cuDeviceGet(int *device, int ordinal) {
    *device = 1000 + ordinal;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int major, minor;
    if (!capability(device - 1000, &major, &minor))
        return 101; /* CUDA_ERROR_INVALID_DEVICE */
    if (attribute != 75 && attribute != 76)
        return 1; /* CUDA_ERROR_INVALID_VALUE */
    *value = attribute == 75 ? major : minor;
    return 0;
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "driver.c")], check=True
    )
    return folder


@pytest.mark.parametrize(
    ("selected", "visible"),
    [
        (None, ("0", "1", "2")),
        ("2, 0", ("2", "0")),
        ("0,-1,1", ("0",)),  # CUDA hides the entries after an invalid one
        ("1,3", ("1",)),
        ("", ()),
        ("NoDevFiles", ()),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,1", ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "1")),
    ],
)
def test_visible_gpus_are_those_of_cuda_visible_devices(
    tmp_path: Path, selected: str | None, visible: tuple[str, ...]
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus(selected, tmp_path) == visible


def test_host_without_gpus_has_no_visible_gpus(tmp_path: Path) -> None:
    assert visible_gpus(None, tmp_path) == visible_gpus("0,1", tmp_path) == ()
    assert select_gpus(()) == ((), "")


@pytest.mark.parametrize(
    ("visible", "capabilities", "selected"),
    [
        ("0", "5.0", "0"),
        ("0 1 2 3", "7.0 7.5 8.6 8.9", "0 1 2 3"),  # p3, g4dn, g5, g6
        ("2 0", "8.0 8.0", "2 0"),  # the driver counts the entries of CUDA_VISIBLE_DEVICES
    ],
)
def test_supported_gpus_are_selected_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, driver: Path, visible: str, capabilities: str, selected: str
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("FAKE_CAPABILITIES", capabilities)
    assert select_gpus(visible.split()) == (tuple(selected.split()), "")


@pytest.mark.parametrize(
    ("visible", "capabilities", "selected", "listed"),
    [
        ("0", "3.7", "", "3.7"),  # P2
        ("0", "9.0", "", "9.0"),  # p5
        ("0", "10.0", "", "10.0"),  # Blackwell
        ("0 1 2", "9.0 7.5 3.7", "1", "9.0, 7.5, 3.7"),
        ("2 1", "8.6 12.0", "2", "8.6, 12.0"),
        ("0 1", "8.0", "0", "8.0"),
        ("0", "", "", "no GPUs"),
    ],
)
def test_unsupported_gpus_are_listed_with_their_capability(
    monkeypatch: pytest.MonkeyPatch, driver: Path, visible: str, capabilities: str, selected: str, listed: str
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("FAKE_CAPABILITIES", capabilities)
    assert select_gpus(visible.split()) == (
        tuple(selected.split()),
        f"MXNet 1.9.1 supports GPUs of compute capability 5.0 to 8.9, and the CUDA driver lists {listed}. To use GPUs, "
        "choose a p3, p4d, g4dn, g5, or g6 instance.",
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("100", "cuInit returned the error 100"),  # CUDA_ERROR_NO_DEVICE
        ("999", "cuInit returned the error 999"),  # CUDA_ERROR_UNKNOWN
        ("crash", "exit status -6"),
    ],
)
def test_driver_that_fails_selects_no_gpu(
    monkeypatch: pytest.MonkeyPatch, driver: Path, status: str, reason: str
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("FAKE_CAPABILITIES", "8.0")
    monkeypatch.setenv("FAKE_STATUS", status)
    fix = "Start the container with --gpus all, or on another host."
    assert select_gpus(["0"]) == ((), f"the CUDA driver does not work ({reason}). {fix}")


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_missing_or_corrupt_driver_selects_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(content)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    selected, reason = select_gpus(["0"])
    assert (selected, reason.partition(":")[0]) == ((), f"the CUDA driver does not work ({tmp_path}/libcuda.so.1")
