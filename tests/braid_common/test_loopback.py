"""Hosts that are this machine itself."""

from __future__ import annotations

import pytest

from braid_common.loopback import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::1%lo", "localhost", "LocalHost."])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0", "localhost.example", "", "board"])
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)
