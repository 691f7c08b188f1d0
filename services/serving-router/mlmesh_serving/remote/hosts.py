"""Which hosts the router may connect to for its users.

A user's URL makes the router open a connection from where it stands, which may see more than the user does (server-side
request forgery). So only hosts that the operator has named are called; the address that a name has is checked at the
time of the connection, and that very address is connected to, since a name may have another a moment later.

Reference: https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
"""

import asyncio
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unavailable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOOPBACK = "127.0.0.0/8,::1"
_NAME = re.compile(r"(\*\.)?([a-z0-9_-]+\.)*[a-z0-9_-]+", re.ASCII)
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts that may be called.

    Attributes:
        any: Every host may, but for link-local addresses: clouds give out credentials there.
        names: Host names in lower case; `.example.com` stands for all names below example.com.
        networks: Addresses, whatever name they are called by; link-local ones only if they are in here.
    """

    any: bool = False
    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def check(self, host: str, field: str) -> None:
        """Checks a host at the door, as far as it can be told without asking for its address.

        Raises:
            InvalidArgument: It may not be called.
        """
        address = _address(host)
        if address is not None:
            allowed = self._allows(address, named=False)
        else:
            allowed = self.any or self._is_named(host) or bool(self.networks)
        if not allowed:
            raise InvalidArgument(
                f"{host} is no host that this server may call; its operator names them (MLMESH_SERVING_REMOTE_HOSTS)",
                field=field,
            )

    async def resolve(self, host: str, port: int) -> list[str]:
        """Gives the addresses of a host that may be connected to.

        Raises:
            Unavailable: The host has no address now.
            FailedPrecondition: None of its addresses may be called.
        """
        given = _address(host)
        if given is not None:
            found = [given]
        else:
            loop = asyncio.get_running_loop()
            try:
                answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise Unavailable(f"{host} has no address", retry_after_seconds=1) from error
            found = [ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]
        named = self._is_named(host)
        allowed = list(dict.fromkeys(str(address) for address in found if self._allows(address, named=named)))
        if not allowed:
            raise FailedPrecondition(f"{host} has no address that this server may call")
        return allowed

    def _is_named(self, host: str) -> bool:
        if host in self.names:
            return True
        labels = host.split(".")
        return any("." + ".".join(labels[index:]) in self.names for index in range(1, len(labels)))

    def _allows(self, address: Address, *, named: bool) -> bool:
        real = _unwrapped(address)
        if any(real in network for network in self.networks if network.version == real.version):
            return True
        return (self.any or named) and not real.is_link_local


def parse_hosts(setting: str) -> AllowedHosts:
    """Reads the setting: host names, `*.example.com`, IP addresses and networks, separated by commas; `*` is all.

    Raises:
        ValueError: An entry is none of these.
    """
    names: set[str] = set()
    networks: list[Network] = []
    every = False
    for entry in filter(None, (part.strip().lower() for part in setting.split(","))):
        if entry == "*":
            every = True
            continue
        try:
            networks.append(ip_network(entry.strip("[]"), strict=False))
        except ValueError:
            if not _NAME.fullmatch(entry):
                raise ValueError(f"{entry!r} is no host name, *.name, IP address or network") from None
            names.add(entry.removeprefix("*"))
    return AllowedHosts(every, frozenset(names), tuple(networks))


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _unwrapped(address: Address) -> Address:
    """Gives the IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(address.packed[-4:])
    return address
