"""Which ports a mesh listens on."""

import random
import socket
from collections.abc import Iterable
from pathlib import Path

_LOWEST = 10240
_BEFORE_EPHEMERAL = 32768


class PortTakenError(Exception):
    """Somebody else listens on a port that the mesh needs; the message names both."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tells whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections do not count
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def pick_free(count: int, host: str = "127.0.0.1", avoid: Iterable[int] = ()) -> list[int]:
    """Picks ports that are free, below those that the system gives to outgoing connections.

    A service that is restarted finds its port still free: no outgoing connection can have been given it.

    Raises:
        PortTakenError: There are not as many.
    """
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = _BEFORE_EPHEMERAL
    candidates = range(_LOWEST, first) if first - _LOWEST > 1000 else range(_LOWEST, 65536)
    taken = set(avoid)
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(found) == count:
            break
        if port not in taken and is_free(port, host):
            found.append(port)
    if len(found) < count:
        raise PortTakenError(f"there are no {count} free ports on {host}")
    return found


def owner_of(port: int) -> str:
    """Says who listens on a port, `python (pid 123)`; empty if the system does not tell."""
    import psutil

    try:
        connections = psutil.net_connections("inet")
    except psutil.Error:
        return ""
    for each in connections:
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
            try:
                return f"{psutil.Process(each.pid).name()} (pid {each.pid})"
            except psutil.Error:
                return f"pid {each.pid}"
    return ""


def check_free(wanted: dict[str, int], host: str = "127.0.0.1") -> None:
    """Checks that all ports are free.

    Args:
        wanted: Port by what it is for.
        host: Where to listen.

    Raises:
        PortTakenError: Some are not; names each, and who has it.
    """
    lines = []
    for purpose, port in wanted.items():
        if not is_free(port, host):
            owner = owner_of(port)
            lines.append(f"port {port} ({purpose}) on {host} is taken" + (f" by {owner}" if owner else ""))
    if lines:
        raise PortTakenError("\n".join(lines))
