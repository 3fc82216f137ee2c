"""Hosts that are this machine itself, and addresses whose calls others can read along."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: an address, whose zone does not matter, or "localhost". No other name
    is looked up."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def is_plain_to_others(url: str) -> bool:
    """Whether a URL is of plain HTTP to another machine: everybody on the way can read what is sent there."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
