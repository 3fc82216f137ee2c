"""The checkup of the database: whether SQLite finds it whole, and whether its rows make sense."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator

from aggregator.checkup.finding import Finding, damaged
from aggregator.settings.config import RunConfig
from aggregator.store.database import DAMAGED_HINT
from aggregator.store.folder import Folder
from aggregator.store.join_tokens import token_state
from aggregator.store.records import OPEN_STATES
from aggregator.store.store import Store
from braid_common.units import show_size

SHOWN_LOSSES = 5


def database(store: Store) -> Iterator[Finding]:
    """The database file: reads all of it, and compares indexes with tables."""
    found = store.damage()
    yield from (damaged("database", line, DAMAGED_HINT) for line in found)
    if not found:
        size = show_size(store.size_bytes())
        text = f"{size}, {len(store.devices())} boards, {len(store.rounds())} rounds: sound"
        yield Finding("database", "ok", text)


def bound_settings(config: RunConfig, store: Store) -> Finding:
    """The settings that bind a run since its first board enrolled."""
    stored = json.loads(store.fact("settings") or "{}")
    changed = [name for name, value in config.frozen_values().items() if stored.get(name, value) != value]
    if changed and store.devices():
        text = f"{changed[0]} in run.toml is another than when the first board enrolled: {stored[changed[0]]!r}"
        return damaged("settings", text, "Put the old value back.")
    return Finding("settings", "ok", "what may not change has not changed")


def join_tokens(folder: Folder, store: Store) -> Finding:
    """Who may still join."""
    now = store.wall_clock()
    tokens = store.tokens()
    states = Counter(token_state(token, now) for token in tokens)
    left = sum(token.uses_left for token in tokens if token_state(token, now) == "valid")
    listed = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
    if left:
        return Finding("tokens", "ok", f"{listed}; {left} more boards may join")
    hint = f"To let boards in: aggregator token create {folder.root} --uses N"
    return Finding("tokens", "ok", f"{listed}; no more boards may join", hint)


def rounds(store: Store) -> Finding:
    """Rounds and versions as rows: each open round stands on a version that there is."""
    versions, opened = store.versions(), [row for row in store.rounds() if row.state in OPEN_STATES]
    orphans = [row for row in opened if row.version not in versions]
    if orphans or len(opened) > 1:
        number = (orphans or opened)[-1].round
        text = f"round {number} is open on a version that there is not" if orphans else f"{len(opened)} rounds are open"
        return damaged("rounds", text, "Put the folder's backup back.")
    newest = f"version {max(versions)} is the newest" if versions else "no version yet"
    now = f"round {opened[0].round} is open" if opened else "no round is open"
    return Finding("rounds", "ok", f"{newest}, {now}; kept: {', '.join(map(str, versions)) or 'none'}")


def losses(folder: Folder, store: Store) -> Iterator[Finding]:
    """The losses that the server has found itself and gone on without, the newest last."""
    for loss in store.losses()[-SHOWN_LOSSES:]:
        day = time.strftime("%Y-%m-%d", time.localtime(loss.found_at))
        yield Finding("lost before", "warning", f"{loss.what}, on {day}: {loss.reason}")
    aside = list(folder.quarantine.iterdir()) if folder.quarantine.is_dir() else []
    if aside:
        size = show_size(sum(path.stat().st_size for path in aside))
        hint = f"Nothing needs them: look at them, check the disk, and remove {folder.quarantine}."
        yield Finding("quarantine", "warning", f"{len(aside)} damaged files were put aside, {size}", hint)
