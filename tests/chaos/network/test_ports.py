"""Ports of servers that are killed and started again."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from chaos.network.ports import quiet_port

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not RANGE.exists(), reason="not Linux, or a kernel that hides its settings")
def test_nobody_is_given_a_quiet_port_by_chance() -> None:
    """While a server was down, a stranger's took its port and told its boards that it does not know them."""
    lowest = int(RANGE.read_text().split()[0])

    assert quiet_port() < lowest


def test_it_is_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", quiet_port()))
