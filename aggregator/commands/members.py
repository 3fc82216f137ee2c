"""`aggregator token` and `aggregator device`: who may join, and who is shut out or taken out of the fleet."""

from __future__ import annotations

from pathlib import Path

import click

from aggregator.commands.common import DIR, JSON, show, with_store
from aggregator.errors import ConfigError
from braid_common.terminal import typed


@click.group()
def token() -> None:
    """Join tokens: who has one may enrol boards."""


@token.command("create")
@DIR
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Boards that it lets in.")
@click.option("--expires", default="24h", show_default=True, help="How long it lasts, such as 30min, 24h or 7d.")
@click.option("--label", default="", help="Whom it is for.")
@JSON
def token_create(folder: Path, uses: int, expires: str, label: str, as_json: bool) -> None:
    """Make a join token. It is shown once; only its hash is kept."""
    from aggregator.store.secrets import new_secret, secret_hash
    from braid_common.units import parse_duration, show_seconds

    try:
        life_s = parse_duration(expires)
    except ValueError as error:
        raise ConfigError(f"--expires: {error}.", "Write it as 30min, 24h or 7d.") from error
    secret, label = new_secret(), typed(label)
    made = with_store(folder, lambda store: store.add_token(secret_hash(secret), label, uses=uses, life_s=life_s))
    show({"id": made.id, "token": secret, "label": label, "uses": uses, "expires_at": made.expires_at}, as_json, secret)
    if not as_json:
        boards = "1 board" if uses == 1 else f"{uses} boards"
        click.echo(f"number {made.id}: for {boards} within {show_seconds(life_s)}", err=True)


@token.command("list")
@DIR
@JSON
def token_list(folder: Path, as_json: bool) -> None:
    """List join tokens by number, with the devices that they made."""
    from aggregator.report.members import token_facts, tokens_text

    facts = with_store(folder, lambda store: [token_facts(t, store.wall_clock()) for t in store.tokens()])
    show(facts, as_json, tokens_text(facts))


@token.command("revoke")
@DIR
@click.argument("number", type=int)
def token_revoke(folder: Path, number: int) -> None:
    """End a join token. Boards that have enrolled with it stay."""
    if not with_store(folder, lambda store: store.revoke_token(number)):
        raise ConfigError(f"There is no token {number}.", f"See `aggregator token list {folder}`.")
    click.echo(f"token {number} is revoked")


@click.group()
def device() -> None:
    """Enrolled boards."""


@device.command("list")
@DIR
@JSON
def device_list(folder: Path, as_json: bool) -> None:
    """List enrolled boards, and those that were removed and are still shut out."""
    from aggregator.report.members import device_facts, devices_text

    facts = with_store(folder, device_facts)
    show(facts, as_json, devices_text(facts))


@device.command("revoke")
@DIR
@click.argument("device_id", metavar="DEVICE")
def device_revoke(folder: Path, device_id: str) -> None:
    """Shut a board out, from its next call on, whatever join token it has; `allow` lets it in again."""
    revoked = with_store(folder, lambda store: store.revoke_device(device_id))
    if revoked is None:
        raise _no_device(folder, device_id)
    click.echo(f"{device_id} is revoked")
    for number in revoked.tokens:
        click.echo(f"token {number}, which it knows, is revoked as well: boards yet to join need another")


@device.command("allow")
@DIR
@click.argument("device_id", metavar="DEVICE")
def device_allow(folder: Path, device_id: str) -> None:
    """Let a revoked board in again: start its client, or have it join with a token."""
    if not with_store(folder, lambda store: store.allow_device(device_id)):
        raise _no_device(folder, device_id)
    click.echo(f"{device_id} is let in again")


@device.command("remove")
@DIR
@click.argument("device_ids", metavar="DEVICE...", nargs=-1, required=True)
def device_remove(folder: Path, device_ids: tuple[str, ...]) -> None:
    """Take boards out of the fleet for good: makes room, and forgets their names and counters.

    What they have taught stays. A revoked one stays shut out.
    """
    for device_id in device_ids:
        if not with_store(folder, lambda store: store.remove_device(device_id)):  # noqa: B023 - called at once
            raise _no_device(folder, device_id)
        click.echo(f"{device_id} is removed")


def _no_device(folder: Path, device_id: str) -> ConfigError:
    return ConfigError(f"There is no device {device_id}.", f"See `aggregator device list {folder}`.")
