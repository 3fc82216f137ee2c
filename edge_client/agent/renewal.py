"""Renewal of what a board and its server know each other by: the board's credential, the server's certificate.

The identity on disk is always one that the server knows, whenever the power goes: a next credential is kept before the
server hears of it, and the one in use is valid until the next one was used
(docs/decisions/0061-renewed-by-themselves.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec

from braid_common.units import printable
from edge_client.agent.enrolment import proves_certificate
from edge_client.errors import ClientError, DiskError
from edge_client.network.api import Api
from edge_client.network.errors import ConflictError, RequestError
from edge_client.state.folder import Identity, StateFolder, new_credential
from wire.messages import Task
from wire.proof import credential_hash


class Renewal:
    """Keeps a board's identity up to date: the `Keeper` of its transport.

    The identity is read from the folder whenever it is needed: it changes once a month, and a new enrolment changes it
    as well. `tell`: hears what the board's people should know.
    """

    def __init__(self, api: Api, folder: StateFolder, tell: Callable[[str], None] = lambda _: None) -> None:
        self._api, self._folder, self._tell = api, folder, tell
        self._notice = ""

    def credentials(self) -> Sequence[str]:
        """All that the server may know: after a power cut that the disk did not survive, or with a backup restored."""
        identity = self._identity()
        return () if identity is None else identity.credentials

    async def follows(self, fingerprint: str) -> bool:
        """Whether the server has proven that this certificate is its own; it is then the pinned one."""
        identity = self._identity()
        if identity is None or not identity.device or not await proves_certificate(identity, fingerprint):
            return False
        given = identity.given_fingerprint or identity.fingerprint
        followed = msgspec.structs.replace(identity, fingerprint=fingerprint, given_fingerprint=given)
        with contextlib.suppress(DiskError):  # the next start asks again
            self._folder.write_identity(followed)
        self._api.transport.trust(fingerprint)
        self._tell(f"the server has a new certificate, and has proven it: {fingerprint}")
        return True

    async def heed(self, task: Task) -> None:
        """Do what a task says beside its work: tell the board's people what they should know, renew the credential."""
        if task.notice and task.notice != self._notice:
            self._tell(printable(task.notice))
        self._notice = task.notice
        if task.renew:
            await self.renew()

    async def renew(self) -> None:
        """Use another credential from now on. Where that cannot be done, the one in use goes on being it."""
        identity, in_use = self._identity(), self._api.transport.credential
        if identity is None or in_use not in identity.credentials:
            return
        drawn = identity.with_next(new_credential(), in_use)
        try:
            if drawn != identity:
                self._folder.write_identity(drawn)
            await self._api.renew(credential_hash(drawn.next_credential))
            self._folder.write_identity(drawn.renewed())
        except (DiskError, ConflictError, RequestError):
            return
        self._api.transport.credential = drawn.next_credential

    def _identity(self) -> Identity | None:
        try:
            return self._folder.read_identity()
        except ClientError:
            return None
