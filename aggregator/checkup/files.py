"""The checkup of a folder's files: every blob against its name, who may read them, and the room that is left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from aggregator.checkup.finding import Finding, damaged
from aggregator.downloads.versions import decoded
from aggregator.errors import BaseModelError, StateError
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.rules import RULES
from aggregator.settings.base_model import told_of, trainable
from aggregator.settings.config import RunConfig
from aggregator.settings.sizes import state_bytes, update_bytes
from aggregator.store.folder import OTHERS, Folder
from aggregator.store.records import OPEN_STATES
from aggregator.store.store import Store
from braid_common.base.files import file_digest
from braid_common.units import show_size

AGAIN = "Nothing to do: started again, the server puts the file aside and asks the board for another one."


def stored_files(folder: Folder, store: Store) -> Iterator[Finding]:
    """Every file that a row names, read whole."""
    named = named_files(store)
    paths = [path for digest in named if (path := folder.blobs / digest).exists()]
    read = told_of(sum(path.stat().st_size for path in paths))
    reasons = {digest: reason for digest in named if (reason := _damage(folder.blobs / digest, digest, read))}
    still = named_files(store)  # a running server may have dropped some meanwhile
    lost = {digest: reason for digest, reason in reasons.items() if digest in still}
    versions = store.versions()
    for digest, reason in lost.items():
        yield damaged(still[digest], f"{folder.blobs / digest} {reason}", _remedy(digest, versions))
    if not lost:
        n_others = sum(path.name not in named for path in folder.blobs.iterdir()) if folder.blobs.is_dir() else 0
        others = f"; {n_others} that no row names go by themselves" if n_others else ""
        size = show_size(sum(path.stat().st_size for path in paths if path.exists()))
        yield Finding("files", "ok", f"{len(named)}, {size}, each with the SHA-256 that its row says{others}")
    if versions and versions[max(versions)] not in lost:
        yield _newest(folder, max(versions), versions[max(versions)])


def named_files(store: Store) -> dict[str, str]:
    """The digests of all files that are needed, and what each is."""
    named = dict.fromkeys(store.live_digests(), "file")
    named.update({digest: f"version {version}" for version, digest in store.versions().items()})
    opened = [row.round for row in store.rounds() if row.state in OPEN_STATES]
    answers = [answer for number in opened for answer in store.updates(number)] + list(store.profiles())
    waiting = [(each.digest, each.device) for each in store.received()]
    for digest, device in [*((answer.digest, answer.device) for answer in answers), *waiting]:
        if named.get(digest) == "file":
            named[digest] = f"upload of {device}"
    return named


def _damage(path: Path, digest: str, read: Callable[[int], object]) -> str:
    """The damage of a file; "" for none."""
    try:
        return "" if file_digest(path, read) == digest else "is damaged: its SHA-256 is not its name"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _remedy(digest: str, versions: Mapping[int, str]) -> str:
    if digest not in versions.values():
        return AGAIN
    if digest != versions[max(versions)]:
        return "Late updates and `export` of this version need it: put the file back from the backup, if you have it."
    before = max((version for version, each in versions.items() if each != digest), default=0)
    return f"Put the file back from the backup before the next start, or the run goes on from version {before}."


def _newest(folder: Folder, version: int, digest: str) -> Finding:
    try:
        state = decoded((folder.blobs / digest).read_bytes(), version)
    except FileNotFoundError:  # a running server has dropped it: there is a newer one
        return Finding("newest", "ok", f"version {version} was followed by another while this looked")
    except StateError as error:
        return damaged("newest", error.message, error.hint)
    return Finding("newest", "ok", f"version {version} can be read, {len(state.weights)} weights")


def permissions(folder: Folder) -> Finding:
    """Whether the folder is its owner's alone."""
    paths = [path for path in folder.known() if path.exists()]
    is_open = [path for path in paths if path.stat().st_mode & OTHERS]
    owner = folder.root.stat().st_uid
    others = [path for path in paths if path.stat().st_uid != owner]
    if others:
        hint = f"The server may not be able to write it: chown -R --reference={folder.root} {folder.root}"
        return Finding("permissions", "warning", f"{_listed(others)} of another owner than the folder", hint)
    if is_open:
        hint = f"chmod -R go= {_listed(is_open, ' ')}; `aggregator serve` does so as well."
        return Finding("permissions", "warning", f"{_listed(is_open)}: others on this machine may read it", hint)
    return Finding("permissions", "ok", "the owner's alone")


def _listed(paths: Iterable[Path], between: str = ", ") -> str:
    return between.join(map(str, paths))


def space(folder: Folder, config: RunConfig, store: Store) -> Finding:
    """Whether another round has room: an update of every board, and two versions."""
    free = shutil.disk_usage(folder.root).free
    try:
        weights = trainable(config.model.path, config.train.scope, config.targets)
    except BaseModelError:
        return Finding("space", "ok", f"{show_size(free)} free")
    merge, n_boards = config.merge, max(len(store.devices()), config.rounds.min_devices)
    begun = RULES[merge.rule].TRAITS.has_start
    version = state_bytes(weights, merge.server_rank, merge.max_rank, OPTIMISERS[merge.optimiser], begun=begun)
    update = update_bytes(weights, merge.max_rank, config.train.upload, config.train.trains_a)
    needed = 2 * version + n_boards * update
    text = f"{show_size(free)} free; a round of {n_boards} boards takes at most {show_size(needed)}"
    if free >= needed:
        return Finding("space", "ok", text)
    hint = "Make room; where there is none the server waits, and answers boards 507 until there is."
    return Finding("space", "warning", text, hint)
