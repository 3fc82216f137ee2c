"""Reading a run's record from its folder, beside a running server or after it."""

from __future__ import annotations

from aggregator.errors import NothingToExportError
from aggregator.report.whole_run.record import Record, Terms
from aggregator.settings.config import RunConfig
from aggregator.settings.runfile import load
from aggregator.store.folder import Folder
from aggregator.store.store import Store


def read_record(folder: Folder) -> Record:
    """The record as it stands; nothing is written. Raises StateError, ConfigError, DiskError, and NothingToExportError
    where the run was never started."""
    folder.need()
    config = load(folder.config)
    if not folder.database.exists():
        raise NothingToExportError(
            f"{folder.root} has no run yet: its server was never started.",
            f"Start it with `aggregator serve {folder.root}`.",
        )
    store = Store(folder.database, is_read_only=True)
    try:
        # Devices and rounds first: whatever joins or opens meanwhile is of none that the figures know.
        devices, rounds = store.all_devices(), store.rounds()
        return Record(
            terms=_terms(config, store.fact("run_id") or ""),
            devices=devices,
            rounds=rounds,
            arrivals=store.arrivals(),
            reports=store.reports(),
            losses=store.losses(),
            version=max((version for version, _ in store.history()), default=0),
            now=store.wall_clock(),
        )
    finally:
        store.close()


def _terms(config: RunConfig, run_id: str) -> Terms:
    return Terms(
        run_id=run_id,
        name=config.name,
        base=config.model.id,
        rounds=config.rounds.total,
        mode=config.rounds.mode,
        scope=config.train.scope,
        upload=config.train.upload,
        rule=config.merge.rule,
        defence=config.merge.defence,
        weight_bound=config.merge.weight_bound,
        fairness=config.merge.fairness,
        staleness_power=config.rounds.staleness_power,
    )
