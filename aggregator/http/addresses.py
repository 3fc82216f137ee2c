"""The addresses under which others reach a server: of the machine's interfaces where it listens on all of them."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound

IPV6_TABLE = Path("/proc/net/if_inet6")
"""Linux's list of IPv6 addresses: digits, number, prefix, scope, flags and name of the interface."""

_GLOBAL_SCOPE = "00"  # others are the loopback's and those of one link, which mean something with an interface alone
_SIOCGIFADDR = 0x8915  # of Linux's sockios.h: the IPv4 address of an interface
_ADDRESS = slice(20, 24)  # its bytes in the answer: a name of 16, family and port of 2 each

_ELSEWHERE = ("192.0.2.1", 9)
"""An address for documentation (RFC 5737): asked which way leads there, nothing is sent."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable_hosts(host: str) -> list[str]:
    """Hosts for others of a server that listens on `host`, the likeliest first; never empty."""
    if host not in EVERYWHERE:
        return [host]
    found = ipv4_addresses()
    if host != "0.0.0.0":  # noqa: S104 - compared with, not bound
        found += ipv6_addresses()
    return found or [socket.gethostname()]


def own_host(host: str) -> str:
    """The host under which this machine itself reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with


def authority(host: str, port: int) -> str:
    """Host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listening_socket(port: int) -> socket.socket | None:
    """A socket for both IPv6 and IPv4 on all interfaces; None where the system has no such sockets.

    asyncio's own servers on "::" take IPv6 alone. Raises OSError.
    """
    if not socket.has_dualstack_ipv6():
        return None
    return socket.create_server(("::", port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)


def ipv4_addresses() -> list[str]:
    """This machine's, but for the loopback's; the one that leads out comes first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        found = [address for _, name in socket.if_nameindex() if (address := _ipv4_of(probe, name))]
        try:
            probe.connect(_ELSEWHERE)
            outward = probe.getsockname()[0]
        except OSError:  # no way leads out: a network of its own
            outward = ""
    others = [address for address in found if address != outward and not is_loopback(address)]
    return [*([outward] if outward in found else []), *others]


def ipv6_addresses(table: Path = IPV6_TABLE) -> list[str]:
    """This machine's global ones, in the system's order."""
    try:
        lines: Iterable[str] = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [
        socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0]))
        for row in rows
        if len(row) == 6 and row[3] == _GLOBAL_SCOPE
    ]


def _ipv4_of(probe: socket.socket, interface: str) -> str:
    """The address of an interface, "" where it has none."""
    try:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    except OSError:
        return ""
    return socket.inet_ntoa(answer[_ADDRESS])
