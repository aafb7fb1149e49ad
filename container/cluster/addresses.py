"""Addresses of the hosts of a job: name resolution that waits for the platform, and the interface to reach them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import struct
import time
from collections.abc import Iterable

from container.errors import ClientError, PlatformError

LOG = logging.getLogger(__name__)

_SIOCGIFADDR = 0x8915
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds between two attempts


def wait_for_addresses(hosts: Iterable[str], seconds: float) -> dict[str, str]:
    """Return every host's IPv4 address, as soon as each has one; raises PlatformError that names those without.

    The platform starts the hosts one by one, and a name has no address before its host is there.
    """
    deadline, pause, told = time.monotonic() + seconds, _FIRST_PAUSE, False
    found: dict[str, str] = {}
    missing = sorted(hosts)
    while missing:
        for host in missing:
            with contextlib.suppress(OSError, UnicodeError):
                found[host] = str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
        missing = [host for host in missing if host not in found]
        left = deadline - time.monotonic()
        if missing and left <= 0:
            raise PlatformError(
                f"{', '.join(missing)}: no address after {seconds:.0f} s, so this host cannot be reached; start the "
                "job again, and where it runs in a VPC, let its subnets resolve names (CLUSTER_TIMEOUT_SECONDS is the "
                "deadline)"
            )
        if missing:
            if not told:
                LOG.info("waiting for the address of %s", ", ".join(missing))
            told = True
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, _LONGEST_PAUSE)
    return found


def own_address(name: str, address: str, wanted: str | None, platforms: str | None) -> str:
    """Return the address at which other hosts reach this one, whose name has `address`.

    It is that of the interface `wanted`, which the job names, or else of `platforms`, which the platform names.
    """
    if wanted:
        if found := interface_address(wanted):
            return found
        known = ", ".join(name for _, name in socket.if_nameindex())
        raise ClientError(f"_network_interface is {wanted}, which has no IPv4 address on host {name} (it has {known})")
    if platforms:
        if found := interface_address(platforms):
            return found
        LOG.warning("resourceconfig.json names the interface %s, which has no address: %s is used", platforms, address)
    return address


def interface_address(interface: str) -> str | None:
    """Return the IPv4 address of a network interface, None when there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def is_listening(address: str, port: int) -> bool | None:
    """Say whether something listens there; None when that cannot be told, as when packets are dropped."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
    return True
