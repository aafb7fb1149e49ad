"""Hosts with a network of their own: a namespace for each, joined by a bridge, whose links can be cut or slowed.

It takes root and iproute2. Every host is reached by its name, has its address on `data0`, and another one on `aside0`
that leads nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

PREFIX = f"n{os.getpid()}"  # the kernel takes 15 characters


class Network:
    """The network of `count` hosts, the first one's number being 1."""

    def __init__(self, count: int) -> None:
        self.count = count

    def enter(self, number: int) -> list[str]:
        """Return the command that runs what follows it on a host."""
        return ["ip", "netns", "exec", f"{PREFIX}h{number}"]

    def cut(self, number: int) -> None:
        """Take a host's link down, on the bridge's side: the host's own interface keeps its address."""
        _ip("-n", f"{PREFIX}b", "link", "set", f"p{number}", "down")

    def mend(self, number: int) -> None:
        """Take it up again."""
        _ip("-n", f"{PREFIX}b", "link", "set", f"p{number}", "up")

    def slow_down(self, number: int, *how: str) -> None:
        """Delay or lose what a host sends, in tc-netem's words."""
        command = ["tc", "qdisc", "add", "dev", "data0", "root", "netem", *how]
        subprocess.run([*self.enter(number), *command], check=True, capture_output=True)


def name(number: int) -> str:
    return f"algo-{number}"


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """Make the network; raises OSError or CalledProcessError where that cannot be done."""
    bridge, spaces = f"{PREFIX}b", [f"{PREFIX}h{number}" for number in range(1, count + 1)]
    hosts = "127.0.0.1 localhost\n" + "".join(f"10.77.0.{number} {name(number)}\n" for number in range(1, count + 1))
    try:
        for space in (bridge, *spaces):
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", bridge, "link", "set", "br0", "up")
        for number, space in enumerate(spaces, 1):
            _ip("-n", space, "link", "add", "aside0", "type", "bridge")
            _ip("-n", space, "addr", "add", f"10.99.{number}.1/24", "dev", "aside0")
            _ip("-n", space, "link", "set", "aside0", "up")
            _ip("-n", space, "link", "add", "data0", "type", "veth", "peer", "name", f"p{number}", "netns", bridge)
            _ip("-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", "data0")
            _ip("-n", space, "link", "set", "data0", "up")
            _ip("-n", bridge, "link", "set", f"p{number}", "master", "br0", "up")
            resolver = Path("/etc/netns") / space
            resolver.mkdir(parents=True)
            (resolver / "hosts").write_text(hosts)
        yield Network(count)
    finally:
        for space in (*spaces, bridge):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)


def tell_hosts(roots: Sequence[Path], interface: str = "data0") -> None:
    """Write what the platform says of the hosts."""
    names = [name(number) for number in range(1, len(roots) + 1)]
    for root, own in zip(roots, names, strict=True):
        config = {"current_host": own, "hosts": names, "network_interface_name": interface}
        (root / "input/config/resourceconfig.json").write_text(json.dumps(config))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
