"""The checkup of what a run is made of: run.toml, and the base that it names."""

from __future__ import annotations

from aggregator.checkup.finding import Finding, damaged
from aggregator.errors import ConfigError
from aggregator.settings.base_model import told_of
from aggregator.settings.config import RunConfig
from aggregator.settings.runfile import load
from aggregator.store.folder import Folder
from braid_common.base.files import BaseFilesError, base_digest, base_file_names
from braid_common.units import show_size


def run_settings(folder: Folder) -> tuple[RunConfig | None, Finding]:
    """run.toml, and what there is to say about it."""
    try:
        config = load(folder.config)
    except ConfigError as error:
        return None, damaged("run.toml", error.message, error.hint)
    text = f"{config.rounds.total} rounds, at least {config.rounds.min_devices} boards, rule {config.merge.rule}"
    return config, Finding("run.toml", "ok", text)


def base(config: RunConfig) -> Finding:
    """The base: reads all of it."""
    folder = config.model.path
    hint = "Put the old files back; with a base from the hub, remove its cache and `aggregator serve` fetches it again."
    try:
        size_bytes = sum((folder / name).stat().st_size for name in base_file_names(folder))
        digest = base_digest(folder, told_of(size_bytes))
    except (BaseFilesError, OSError) as error:
        return damaged("base", str(error), hint)
    if digest != config.model.digest:
        return damaged("base", f"{folder} is not what this run was made for: its SHA-256 is another", hint)
    return Finding("base", "ok", f"{config.model.id}, {show_size(size_bytes)}, with the SHA-256 of run.toml")
