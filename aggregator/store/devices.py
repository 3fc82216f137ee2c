"""Join tokens and devices as rows: who is let in, by which token, under which credential, and who is shut out.

`store.store.Store` has these methods with its own; each is one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from aggregator.settings.keys import MAX_DEVICES
from aggregator.store.credentials import is_due
from aggregator.store.database import Rows
from aggregator.store.device_ids import device_id
from aggregator.store.join_tokens import DEFAULT_LIFE_S, DEFAULT_USES, Token, require_valid
from aggregator.store.records import Device, FleetFullError, RenewalError, Revocation, ShutOutError, Traffic
from aggregator.store.tables import DEVICES, FACTS, REPORTS, TOKEN_USES, TOKENS

FLEET_FACT = "fleet_changes"
"""A number that grows whenever a command shuts a device out, lets it in again or removes it: a running server looks."""

_OF_NOBODY: Mapping[str, None] = {"next_credential": None, "former_credential": None}


class DeviceRecords(Rows):
    """The part of a store that knows tokens and devices."""

    # --- join tokens ---

    def add_token(
        self, token_hash: str, label: str, *, uses: int = DEFAULT_USES, life_s: float = DEFAULT_LIFE_S
    ) -> Token:
        """Store a join token's hash; it lets in `uses` boards within `life_s` seconds from now."""
        now = self.wall_clock()
        times = {"created_at": now, "expires_at": now + life_s}
        row = {"hash": token_hash, "label": label, "uses": uses, "revoked": False, **times}
        with self._writing() as connection:
            number = int(connection.execute(TOKENS.insert().values(row).returning(TOKENS.c.id)).scalar_one())
            return _tokens(connection, TOKENS.c.id == number)[0]

    def tokens(self) -> tuple[Token, ...]:
        """All join tokens, with the devices that they made."""
        with self._reading() as connection:
            return _tokens(connection)

    def token_of(self, token_hash: str) -> Token | None:
        """The join token of this hash."""
        with self._reading() as connection:
            return next(iter(_tokens(connection, TOKENS.c.hash == token_hash)), None)

    def revoke_token(self, number: int) -> bool:
        """Whether there was such a token. Boards that have enrolled with it stay."""
        with self._writing() as connection:
            return connection.execute(update(TOKENS).where(TOKENS.c.id == number).values(revoked=True)).rowcount == 1

    # --- devices ---

    def enrol(self, install_id: str, name: str, credential: str, token: str | None = None) -> Device:
        """Store a device, or give the one of the same `install_id` its fresh credential hash and name.

        A new device gets an id made of its name, which it keeps. `token` is the hash of the join token by which it
        comes, one use of which is gone then; None where the caller has let it in.

        Raises ShutOutError for a device that is revoked, TokenRefusedError, FleetFullError beyond MAX_DEVICES.
        """
        now = self.wall_clock()
        with self._writing() as connection:
            known = _device_where(connection, DEVICES.c.install_id == install_id)
            if known is not None and known.revoked:
                raise ShutOutError(known.device)
            paid = None
            if token is not None:
                found = _tokens(connection, TOKENS.c.hash == token)
                paid = require_valid(found, "" if known is None else known.device, now)
            fresh = {"name": name, "credential": credential, "credential_at": now, "has_left": False, **_OF_NOBODY}
            if known is None:
                device = _insert(connection, install_id, now, fresh)
            else:
                device = known.device
                connection.execute(update(DEVICES).where(DEVICES.c.device == device).values(**fresh))
            if paid is not None:
                use = insert(TOKEN_USES).values(token=paid.id, device=device, used_at=now)
                connection.execute(use.on_conflict_do_nothing())
            return _known(_device_where(connection, DEVICES.c.device == device))

    def device(self, device: str) -> Device | None:
        with self._reading() as connection:
            return _device_where(connection, DEVICES.c.device == device)

    def device_of(self, credential: str) -> Device | None:
        """The device whose credential has this hash: the one in use, or the next one."""
        with self._reading() as connection:
            in_use = _device_where(connection, DEVICES.c.credential == credential)  # nearly always: one look
            return in_use or _device_where(connection, DEVICES.c.next_credential == credential)

    def formerly_of(self, credential: str) -> Device | None:
        """The device that has renewed the credential of this hash, and uses another one now."""
        with self._reading() as connection:
            return _device_where(connection, DEVICES.c.former_credential == credential)

    def devices(self) -> tuple[Device, ...]:
        """The devices of the fleet, without those that were removed."""
        return tuple(device for device in self.all_devices() if not device.removed)

    def all_devices(self) -> tuple[Device, ...]:
        """Every device that has ever been in the fleet, in the order in which they came."""
        with self._reading() as connection:
            rows = connection.execute(select(DEVICES).order_by(DEVICES.c.enrolled_at, DEVICES.c.device)).mappings()
            return tuple(Device(**row) for row in rows)

    def leave_device(self, device: str) -> None:
        """End a device's credential until its `install_id` enrols again."""
        with self._writing() as connection:
            _end_credential(connection, device, has_left=True)

    def count_bytes(self, traffic: Mapping[str, Traffic]) -> None:
        """Store each device's traffic so far."""
        with self._writing() as connection:
            count_bytes(connection, traffic)

    # --- credentials ---

    def offer_credential(self, device: str, credential: str) -> None:
        """Store the hash of a device's next credential, which is valid beside the one in use until it is used itself.

        Raises RenewalError where none is due, or where it is some device's already.
        """
        with self._writing() as connection:
            mine = _known(_device_where(connection, DEVICES.c.device == device))
            if credential == mine.next_credential:
                return
            if not is_due(mine.credential_at, self.wall_clock()):
                raise RenewalError("this device's credential is not to be renewed yet")
            columns = (DEVICES.c.credential, DEVICES.c.next_credential, DEVICES.c.former_credential)
            same = (columns[0] == credential) | (columns[1] == credential) | (columns[2] == credential)
            if _device_where(connection, same) is not None:
                raise RenewalError("this credential is known already")
            change = update(DEVICES).where(DEVICES.c.device == device).values(next_credential=credential)
            connection.execute(change)

    def take_credential(self, device: str, credential: str) -> Device:
        """End a device's credential, now that its next one, of this hash, was used. Does nothing where that is done."""
        with self._writing() as connection:
            change = update(DEVICES).where((DEVICES.c.device == device) & (DEVICES.c.next_credential == credential))
            fresh = {"credential": credential, "next_credential": None, "credential_at": self.wall_clock()}
            connection.execute(change.values(**fresh, former_credential=DEVICES.c.credential))
            return _known(_device_where(connection, DEVICES.c.device == device))

    # --- what commands beside the server do ---

    def revoke_device(self, device: str) -> Revocation | None:
        """Shut a device out, and end those of its join tokens by which it could make another one of itself.

        None where there is no such device.
        """
        with self._writing() as connection:
            if connection.execute(update(DEVICES).where(DEVICES.c.device == device).values(revoked=True)).rowcount == 0:
                return None
            used = select(TOKEN_USES.c.token).where(TOKEN_USES.c.device == device)
            ended = tuple(t.id for t in _tokens(connection, TOKENS.c.id.in_(used)) if t.uses_left and not t.revoked)
            connection.execute(update(TOKENS).where(TOKENS.c.id.in_(ended)).values(revoked=True))
            _tell_server(connection)
            return Revocation(ended)

    def allow_device(self, device: str) -> bool:
        """Let a revoked device in again, under the credential that it has. Whether there was such a device."""
        with self._writing() as connection:
            known = _device_where(connection, DEVICES.c.device == device)
            if known is None or (known.removed and not known.revoked):
                return False
            free = {"install_id": f"removed {device}"} if known.removed else {}
            connection.execute(update(DEVICES).where(DEVICES.c.device == device).values(revoked=False, **free))
            _tell_server(connection)
            return True

    def remove_device(self, device: str) -> bool:
        """Take a device out of the fleet: its credential ends, its place is free, its name, counters and reports are
        forgotten. Its updates count all the same, and its board may enrol as a new device unless it is revoked.

        Whether there was such a device.
        """
        with self._writing() as connection:
            known = _device_where(connection, DEVICES.c.device == device)
            if known is None or known.removed:
                return False
            install_id = known.install_id if known.revoked else f"removed {device}"
            gone = {"name": "", "removed": True, "install_id": install_id, **Traffic()._asdict()}
            _end_credential(connection, device, **gone)
            connection.execute(delete(REPORTS).where(REPORTS.c.device == device))
            _tell_server(connection)
            return True


def count_bytes(connection: Connection, traffic: Mapping[str, Traffic]) -> None:
    """Store each device's traffic so far, but for those that were removed."""
    for device, its in traffic.items():
        change = update(DEVICES).where((DEVICES.c.device == device) & ~DEVICES.c.removed)
        connection.execute(change.values(its._asdict()))


def require_member(connection: Connection, device: str) -> None:
    """Raise ShutOutError for a device that was revoked or removed, maybe while it was sending."""
    known = _device_where(connection, DEVICES.c.device == device)
    if known is not None and (known.revoked or known.removed):
        raise ShutOutError(device, revoked=known.revoked)


def _insert(connection: Connection, install_id: str, now: float, fresh: Mapping[str, Any]) -> str:
    """A new device's row; its id. Raises FleetFullError."""
    if connection.execute(select(func.count()).where(~DEVICES.c.removed)).scalar_one() >= MAX_DEVICES:
        raise FleetFullError(f"{MAX_DEVICES} devices have enrolled")
    made = device_id(fresh["name"], set(connection.execute(select(DEVICES.c.device)).scalars()))
    row = {"device": made, "install_id": install_id, "revoked": False, "enrolled_at": now, **fresh}
    connection.execute(DEVICES.insert().values(**row, **Traffic()._asdict()))
    return made


def _end_credential(connection: Connection, device: str, **changes: Any) -> None:
    """Change a device's row so that nothing that is sent can be its credential."""
    gone = {"credential": f"of nobody: {device}", **_OF_NOBODY}  # no hash
    connection.execute(update(DEVICES).where(DEVICES.c.device == device).values(**gone, **changes))


def _tokens(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[Token, ...]:
    rows = connection.execute(select(TOKENS).where(*conditions).order_by(TOKENS.c.id)).mappings().all()
    numbers = [row["id"] for row in rows]
    uses = select(TOKEN_USES).where(TOKEN_USES.c.token.in_(numbers)).order_by(TOKEN_USES.c.used_at, TOKEN_USES.c.device)
    made: dict[int, tuple[str, ...]] = dict.fromkeys(numbers, ())
    for row in connection.execute(uses).mappings():
        made[row["token"]] += (row["device"],)
    return tuple(Token(**row, devices=made[row["id"]]) for row in rows)


def _device_where(connection: Connection, condition: ColumnElement[bool]) -> Device | None:
    row = connection.execute(select(DEVICES).where(condition)).mappings().one_or_none()
    return None if row is None else Device(**row)


def _known(device: Device | None) -> Device:
    assert device is not None
    return device


def _tell_server(connection: Connection) -> None:
    """Let a running server see that the fleet is another."""
    before = connection.execute(select(FACTS.c.value).where(FACTS.c.key == FLEET_FACT)).scalar_one_or_none()
    row = insert(FACTS).values(key=FLEET_FACT, value=str(int(before or 0) + 1))
    connection.execute(row.on_conflict_do_update(index_elements=["key"], set_={"value": row.excluded.value}))
