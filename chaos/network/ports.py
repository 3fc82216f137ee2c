"""Ports that stay free while nobody listens there."""

from __future__ import annotations

import secrets
import socket

LOWEST, HIGHEST = 20_000, 32_000
"""Below the range that Linux gives to whoever asks for any port: another program's server in the place of one that is
being restarted would answer its boards, and refuse them."""


def quiet_port() -> int:
    """A port of this machine that is free, and is given to nobody by chance."""
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
