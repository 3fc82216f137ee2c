"""The addresses under which others reach a server: of the machine's interfaces where it listens on all of them."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from braid_common.loopback import is_loopback

EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound

IPV6_TABLE = Path("/proc/net/if_inet6")
"""Linux's list of IPv6 addresses: digits, number, prefix, scope, flags and name of the interface."""

UNREAD_S = 60.0
"""A peer that takes no byte for this long is gone, or does not want to read."""

RECEIVED_BYTES = 128 * 1024
"""Bytes of a connection that the system holds until they are read. By itself it lets them grow to 6 MiB, also of bodies
that nobody wants. So much in each round trip is 10 Mbit/s over 100 ms."""

_GLOBAL_SCOPE = "00"  # others are the loopback's and those of one link, which mean something with an interface alone
_SIOCGIFADDR = 0x8915  # of Linux's sockios.h: the IPv4 address of an interface
_ADDRESS = slice(20, 24)  # its bytes in the answer: a name of 16, family and port of 2 each

_ELSEWHERE = ("192.0.2.1", 9)
"""An address for documentation (RFC 5737): asked which way leads there, nothing is sent."""


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


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Bound sockets for every address of a host; for "::" and "" one for both IPv6 and IPv4, where the system has such.

    Raises OSError.
    """
    if host in ("::", "") and socket.has_dualstack_ipv6():
        return [_prepared(socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True))]
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(_prepared(socket.create_server(address[:2], family=family)))
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets


def _prepared(one: socket.socket) -> socket.socket:
    """The socket with limits that its connections inherit."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # ends a connection whose peer takes no data, though its system answers
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNREAD_S))
    return one


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
