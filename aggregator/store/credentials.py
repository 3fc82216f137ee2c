"""Device credentials by their rule: when one is to be renewed. Pure.

A board draws its next credential, keeps it, and tells the server its hash under the old one, which stays valid until
the next one was used (docs/decisions/0061-renewed-by-themselves.md).
"""

from __future__ import annotations

RENEW_AFTER_S = 30 * 86400.0
"""Age at which a credential is renewed. Whoever has copied one has it for a month at most, and a board that is off for
the winter needs no renewal meanwhile: its credential does not end by itself."""


def is_due(credential_at: float, now: float) -> bool:
    """Whether a credential in use since `credential_at` is to be renewed. Both in seconds since 1970.

    One that seems to be of the future is due as well: the server's clock was ahead when it came, or is behind now.
    """
    return not 0 <= now - credential_at < RENEW_AFTER_S
