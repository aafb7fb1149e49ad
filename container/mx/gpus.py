"""GPUs that MXNet 1.9.1 supports: their compute capability from the CUDA driver, without MXNet.

`python -m container.mx.gpus` prints the compute capability of every visible GPU, one per line. The server runs it as a
child process, because a process that initialized the driver cannot fork workers that use GPUs.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# The cu112 wheel contains machine code for 5.0, 6.0, 7.0, 8.0, and 8.6, and no PTX. Machine code also runs on later
# minor versions of the same major version.
SUPPORTED = "5.0 to 8.9"
_FIRST_SUPPORTED, _FIRST_UNSUPPORTED = (5, 0), (9, 0)
INSTANCES = "p3, p4d, g4dn, g5, or g6"

_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of CUdevice_attribute in cuda.h
_QUERY_SECONDS = 120  # without the persistence mode of the driver, cuInit takes seconds per GPU


def visible_gpus(selected: str | None, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the GPUs of this container as entries of CUDA_VISIBLE_DEVICES, without loading the driver.

    `selected` is the value of that variable. As in CUDA, an invalid entry hides the entries after it.
    """
    numbers = tuple(str(number) for number in range(len(list(devices.glob("nvidia[0-9]*")))))
    if selected is None or not numbers:
        return numbers
    entries = (entry.strip() for entry in selected.split(","))
    return tuple(itertools.takewhile(lambda entry: entry in numbers or entry.startswith(("GPU-", "MIG-")), entries))


def select_gpus(visible: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return the GPUs of `visible` that MXNet supports, and why MXNet cannot use the others.

    The reason is an empty string if all GPUs are supported, or if `visible` is empty.
    """
    if not visible:
        return (), ""
    command = [sys.executable, "-m", "container.mx.gpus"]
    directory = Path(__file__).parents[2]
    try:
        child = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return (), f"the CUDA driver did not respond within {_QUERY_SECONDS} s. Start the container on another host."
    if child.returncode:
        reason = next(reversed(child.stderr.split("\n")[:-1]), f"exit status {child.returncode}")
        return (), f"the CUDA driver does not work ({reason}). Start the container with --gpus all, or on another host."
    capabilities = child.stdout.split()
    usable = [_is_supported(capability) for capability in capabilities]
    if all(usable) and len(usable) >= len(visible):
        return tuple(visible), ""
    listed = ", ".join(capabilities) or "no GPUs"
    return tuple(itertools.compress(visible, usable)), (
        f"MXNet 1.9.1 supports GPUs of compute capability {SUPPORTED}, and the CUDA driver lists {listed}. To use "
        f"GPUs, choose a {INSTANCES} instance."
    )


def _is_supported(capability: str) -> bool:
    major, minor = capability.split(".")
    return _FIRST_SUPPORTED <= (int(major), int(minor)) < _FIRST_UNSUPPORTED


def _read_capabilities() -> list[str]:
    """Return the compute capability of every GPU that CUDA lists; raises OSError if a call of the driver fails."""
    driver = ctypes.CDLL(_DRIVER)

    def call(name: str, *arguments: object) -> None:
        if status := getattr(driver, name)(*arguments):
            raise OSError(f"{name} returned the error {status}")

    call("cuInit", 0)
    count = ctypes.c_int()
    call("cuDeviceGetCount", ctypes.byref(count))
    capabilities = []
    for ordinal in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        call("cuDeviceGet", ctypes.byref(device), ordinal)
        call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
        call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
        capabilities.append(f"{major.value}.{minor.value}")
    return capabilities


def main() -> None:
    """Print the compute capabilities; a driver that does not work is one line on stderr and exit status 1."""
    try:
        print(*_read_capabilities(), sep="\n")
    except (OSError, AttributeError) as error:  # AttributeError: the library lacks a function
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
