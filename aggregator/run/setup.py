"""Making a server's folder, and opening one: from run.toml to the parts that `Run` needs."""

from __future__ import annotations

import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aggregator.errors import ConfigError, DiskError, NothingToExportError, StateError
from aggregator.merge.defences.defended import defended
from aggregator.merge.rules import RULES
from aggregator.run.memory import LENGTHS_FACT, settled_train
from aggregator.run.run import Run
from aggregator.settings import base_model
from aggregator.settings.config import RunConfig
from aggregator.settings.keys import KEYS, template
from aggregator.settings.runfile import load, parse
from aggregator.settings.sizes import check_sizes
from aggregator.settings.terms import Terms
from aggregator.store.blobs import Blobs
from aggregator.store.device_ids import slug
from aggregator.store.folder import Folder
from aggregator.store.secrets import secret_hash
from aggregator.store.slices import Cuts
from aggregator.store.storage import Storage
from aggregator.store.store import Store
from aggregator.store.uploads import Uploads
from braid_common.atomic_file import write_atomically
from wire.adam import farthest
from wire.dtypes import download_dtype
from wire.manifest import manifest_digest
from wire.run import Weight

log = logging.getLogger("aggregator")


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder whose run can be served."""

    folder: Folder
    config: RunConfig
    run: Run
    store: Store
    uploads: Uploads
    base_files: Mapping[str, base_model.BaseFile]


def create(root: Path, model: str, settings: Mapping[str, Any], force: bool) -> RunConfig:
    """Write `root`/run.toml and the secrets beside it. `settings` ("section.name") replace the defaults.

    Raises BaseModelError, ConfigError for a setting that is not allowed or a folder that is in use, DiskError.
    """
    folder = Folder(root)
    if folder.config.exists() and not force:
        raise ConfigError(f"{folder.config} exists already.", "Edit it, choose another folder, or pass --force.")
    if folder.database.exists():
        raise ConfigError(f"{root} holds a run already.", "Choose another folder, or remove this one yourself.")
    found = base_model.resolve(model)
    chosen = {
        "model.path": str(found.folder),
        "model.id": found.id,
        "model.digest": base_model.digest(found.folder),
        "model.revision": found.revision,
        **settings,
    }
    if "rounds.min_devices" in settings and "rounds.quorum" not in settings:
        chosen["rounds.quorum"] = math.ceil(settings["rounds.min_devices"] * 2 / 3)
    if unknown := sorted(set(settings) - {key.path for key in KEYS}):
        raise ConfigError(f"unknown key {unknown[0]}", "Keys are " + ", ".join(key.path for key in KEYS) + ".")
    text = template(chosen)
    config = parse(text, folder.config)
    _weights(config)
    try:
        folder.make_private()
        write_atomically(folder.config, text.encode())
    except (OSError, UnicodeEncodeError) as error:
        raise DiskError(f"{root} cannot be written: {error}", "Choose a folder of your own.") from error
    folder.secret(folder.operator_token)
    folder.secret(folder.join_token)
    return config


def open_store(folder: Folder, wall_clock: Callable[[], float] = time.time) -> Store:
    """The folder's database, made where there is none, with the first join token in it.

    That one is for as many boards as the run waits for: more come with tokens of their own.
    """
    folder.need()
    store = Store(folder.database, wall_clock)
    try:
        if not store.tokens():
            uses = load(folder.config).rounds.min_devices
            store.add_token(secret_hash(folder.secret(folder.join_token)), "first", uses=uses)
    except BaseException:
        store.close()
        raise
    return store


def _weights(config: RunConfig) -> tuple[Weight, ...]:
    """The run's manifest. Raises BaseModelError, and ConfigError where no run can be made of it."""
    weights = base_model.trainable(config.model.path, config.train.scope, config.targets)
    if not weights:
        raise ConfigError(f"{config.source}: train.targets selects no weight", "Name at least one.")
    check_sizes(config, weights)
    return weights


def _bind(config: RunConfig, store: Store) -> None:
    """Raise StateError where run.toml now says something else about what binds the run."""
    mine = config.frozen_values()
    stored = json.loads(store.settle("settings", json.dumps(mine)))
    changed = [name for name in mine if stored.get(name) != mine[name]]
    if changed and store.devices():
        raise StateError(
            f"{config.source}: {changed[0]} was {stored.get(changed[0])!r} when the first board enrolled, it is "
            f"{mine[changed[0]]!r} now.",
            "Put the old value back, or start a new run with `aggregator init` in another folder.",
        )
    if changed:
        store.replace_fact("settings", json.dumps(mine))


def terms_of(config: RunConfig, store: Store) -> Terms:
    """The run's fixed settings. Its id is drawn when it is first asked for."""
    weights = _weights(config)
    return Terms(
        run_id=store.settle("run_id", f"{slug(config.name, 'run')}-{secrets.token_hex(4)}"),
        weights=weights,
        manifest=manifest_digest(weights),
        max_rank=config.merge.max_rank,
        server_rank=config.merge.server_rank,
        importance=config.train.importance,
        rule=defended(
            RULES[config.merge.rule],
            config.merge.defence,
            config.merge.attackers,
            config.merge.weight_bound,
        ),
        download=download_dtype(config.train.upload),
        rank=0 if RULES[config.merge.rule].TRAITS.prunes else config.train.rank,
        upload=config.train.upload,
        farthest=farthest(config.train.learning_rate, config.train.local_steps),
    )


def open_run(folder: Folder, clock: Callable[[], float], wall_clock: Callable[[], float] = time.time) -> Opened:
    """Open the folder's run where it was left. The caller holds the folder's lock and closes the store.

    `clock`: monotonic seconds, by which the run decides; `wall_clock`: seconds since 1970, by which tokens end and
    credentials are renewed.
    """
    folder.need()
    config = load(folder.config)
    config = replace(config, model=base_model.restored(config.model))
    store = open_store(folder, wall_clock)
    try:
        if folder.make_private():
            log.warning("what is in %s was open to others on this machine: it is its owner's alone now", folder.root)
        store.require_sound()
        _bind(config, store)
        terms = terms_of(config, store)
        files = base_model.verify(config.model.path, config.model.digest, folder.base)
        uploads = Uploads(folder.uploads)
        storage = Storage(store, Blobs(folder.blobs), uploads, Cuts(folder.cuts))
        return Opened(folder, config, Run(config, terms, storage, clock), store, uploads, files)
    except OSError as error:
        store.close()
        raise DiskError(f"{folder.root} cannot be used: {error}", "Check its permissions and free space.") from error
    except BaseException:
        store.close()
        raise


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version as it lies in a folder.

    Attributes:
        version: its number.
        data: the adapter, encoded.
        config: run.toml, with the lengths that the run has chosen.
        run_id: of the run that made it.
    """

    version: int
    data: bytes
    config: RunConfig
    run_id: str


def read_version(folder: Folder, version: int | None) -> StoredVersion:
    """A stored version, the newest for None. Raises NothingToExportError where there is none."""
    folder.need()
    config = load(folder.config)
    store = open_store(folder)
    try:
        versions, run_id = store.versions(), store.fact("run_id") or ""
        config = replace(config, train=settled_train(config, store.fact(LENGTHS_FACT)))
    finally:
        store.close()
    number = max(versions, default=0) if version is None else version
    if not versions:
        raise NothingToExportError(
            f"{folder.root} has no version yet: no round has closed.",
            f"Wait for the first merge; `aggregator status {folder.root}` shows the round.",
        )
    if number not in versions:
        kept = ", ".join(map(str, versions))
        raise NothingToExportError(f"{folder.root} has no version {number}.", f"Versions that are kept: {kept}.")
    return StoredVersion(number, Blobs(folder.blobs).get(versions[number]), config, run_id)
