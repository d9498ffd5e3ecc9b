"""Hosts of their own for tests of a cluster: network namespaces joined by a bridge, on one file system.

All lies in namespaces of ours, the bridge too, so that the machine's own network is left as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

_LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], 47111)) as server:
    server.settimeout(20)
    print("ready", flush=True)
    server.accept()[0].close()
"""
_REACH = "import socket, sys; socket.create_connection((sys.argv[1], 47111), timeout=10).close()"


class NoHosts(Exception):
    """Why this machine lets us have no network namespaces."""


@dataclass(frozen=True)
class Host:
    """A namespace with one address.

    Attributes
    ----------
    name, address : str
    cable : str
        The bridge's end of its connection.
    switch : str
        The namespace of the bridge.
    """

    name: str
    address: str
    cable: str
    switch: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What goes before a command that runs on this host."""
        return "ip", "netns", "exec", self.name

    def unplug(self) -> None:
        """Packets to and from this host get lost from now on; nobody is told."""
        _ip("-n", self.switch, "link", "set", self.cable, "down")


def _ip(*arguments: str) -> None:
    ended = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20)
    if ended.returncode:
        raise NoHosts(f"ip {' '.join(arguments)}: {ended.stderr.strip() or ended.returncode}")


def _namespace(name: str, stack: ExitStack) -> None:
    _ip("netns", "add", name)
    stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True, timeout=20)
    _ip("-n", name, "link", "set", "lo", "up")


@contextmanager
def separate_hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts that reach each other, and nothing else; gone with all their cables afterwards.

    Raises
    ------
    NoHosts
        Where that is not allowed, or no packet gets through.
    """
    if shutil.which("ip") is None:
        raise NoHosts("there is no command ip")
    with ExitStack() as stack:
        switch = f"qixai-{os.getpid()}-switch"
        _namespace(switch, stack)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        hosts = []
        for number in range(count):
            host = Host(f"qixai-{os.getpid()}-{number}", f"10.77.0.{number + 1}", f"cable{number}", switch)
            _namespace(host.name, stack)
            _ip(
                *("-n", switch, "link", "add", host.cable, "type", "veth"),
                *("peer", "name", "eth0", "netns", host.name),
            )
            _ip("-n", switch, "link", "set", host.cable, "master", "bridge", "up")
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.name, "link", "set", "eth0", "up")
            hosts.append(host)
        for host in hosts[1:]:
            _try_connection(host, hosts[0])
        yield hosts


def _try_connection(first: Host, second: Host) -> None:
    listening = subprocess.Popen(
        [*second.prefix, sys.executable, "-c", _LISTEN, second.address], stdout=subprocess.PIPE
    )
    try:
        assert listening.stdout is not None
        listening.stdout.readline()
        ended = subprocess.run(
            [*first.prefix, sys.executable, "-c", _REACH, second.address], capture_output=True
        )
        if ended.returncode:
            raise NoHosts(f"no packet gets from {first.address} to {second.address}")
    finally:
        listening.kill()
        listening.communicate()
