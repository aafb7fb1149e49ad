"""Addresses of the hosts of a job: name resolution that waits for all hosts, and the network interface to use."""

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
    """Wait until every host has an IPv4 address, and return the addresses; raises PlatformError that lists the others.

    SageMaker AI starts the hosts one after the other. A host name has no address before its host has started.
    """
    deadline, pause, is_logged = time.monotonic() + seconds, _FIRST_PAUSE, False
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
                f"{', '.join(missing)}: no IP address after {seconds:.0f} s (CLUSTER_TIMEOUT_SECONDS). Start the job "
                "again. If the job runs in a VPC, enable DNS resolution in its subnets."
            )
        if missing:
            if not is_logged:
                LOG.info("Waiting for the addresses of hosts: %s", ", ".join(missing))
            is_logged = True
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, _LONGEST_PAUSE)
    return found


def own_address(name: str, address: str, requested: str | None, platforms: str | None) -> str:
    """Return the address at which other hosts reach this host, whose name resolves to `address`.

    The interface `requested` (from the hyperparameters) has precedence over `platforms` (from SageMaker AI).
    """
    if requested:
        if found := interface_address(requested):
            return found
        known = ", ".join(name for _, name in socket.if_nameindex())
        raise ClientError(
            f"_network_interface is {requested}, which has no IPv4 address on host {name}. Use one of {known}."
        )
    if platforms:
        if found := interface_address(platforms):
            return found
        LOG.warning(
            "The interface %s in resourceconfig.json has no address. This host uses %s instead.", platforms, address
        )
    return address


def interface_address(interface: str) -> str | None:
    """Return the IPv4 address of a network interface, or None if it has no address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def is_listening(address: str, port: int) -> bool | None:
    """Return whether a process listens on a port; None if this is not known, for example if packets are dropped."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
    return True
