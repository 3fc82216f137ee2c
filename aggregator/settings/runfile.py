"""run.toml, read and checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aggregator.errors import ConfigError
from aggregator.merge.rules import RULES
from aggregator.settings.config import MergeSection, ModelSection, RoundsSection, RunConfig
from aggregator.settings.consistency import consistent
from aggregator.settings.keys import KEYS, TARGETS, checked
from wire.run import TrainSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_CONFIG_BYTES = 64 * 1024
"""run.toml as written has 7 kB."""


def parse(text: str, source: Path) -> RunConfig:
    """Read run.toml's text. Raises ConfigError naming file, key, value and what is allowed."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{source} is not TOML: {error}", "Mend the line, or write a new file with `aggregator init`."
        ) from error
    values = _checked(document, source)
    train = _section(values, "train")
    targets = train.pop("targets")
    keep, importance = train.pop("keep"), train.pop("keep_importance")
    if keep:  # nothing of it is sent where boards are held by nothing
        train["keep"] = {"weight": keep, "importance": importance}
    for name in ("cooldown", "nested"):
        if not train[name]:
            train.pop(name)
    train.pop("objective")  # said by whether there is anything about rewards
    rounds, merge = (_section(values, section) for section in ("rounds", "merge"))
    config = RunConfig(
        name=values["run.name"],
        seed=values["run.seed"],
        model=ModelSection(**{**_section(values, "model"), "path": Path(values["model.path"])}),
        targets=tuple(part for part in TARGETS if part in targets),
        train=msgspec.convert(
            {
                **train,
                **_of_objective(values),
                **_of_rule(values["merge.rule"]),
                **_personal(values),
                "seed": values["run.seed"],
            },
            TrainSettings,
        ),
        rounds=RoundsSection(total=values["run.rounds"], **rounds),
        merge=MergeSection(**merge),
        source=source,
    )
    return consistent(config)


def load(path: Path) -> RunConfig:
    """Read and check a run.toml. Raises ConfigError."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes", "Is it a run.toml?")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no {path}.", f"Make one with `aggregator init {path.parent}`.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "Check its permissions and encoding (UTF-8).") from error
    return parse(text, path)


def _checked(document: Mapping[str, Any], source: Path) -> dict[str, Any]:
    known = {key.path: key for key in KEYS}
    sections = {key.section for key in KEYS}
    for section, table in document.items():
        if section not in sections or not isinstance(table, dict):
            raise ConfigError(f"{source}: unknown key {section!r}", f"Sections are {', '.join(sorted(sections))}.")
        for name in table:
            if f"{section}.{name}" not in known:
                names = ", ".join(key.name for key in KEYS if key.section == section)
                raise ConfigError(f"{source}: unknown key {section}.{name}", f"[{section}] knows {names}.")
    return {
        path: checked(key, document.get(key.section, {}).get(key.name, key.default), source)
        for path, key in known.items()
    }


def _section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The values of one section by the names of its keys."""
    return {key.name: values[key.path] for key in KEYS if key.section == section}


def _personal(values: Mapping[str, Any]) -> dict[str, Any]:
    """The setting of local strands; none at all where boards are asked for none, so that nothing of it is sent."""
    section = _section(values, "personal")
    targets = section.pop("targets")
    return {"personal": {**section, "targets": [] if targets == TARGETS else targets}} if section["rank"] else {}


def _of_objective(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of rewards that boards are told: none, where they learn from right answers."""
    return {"reward": _section(values, "reward")} if values["train.objective"] == "reward" else {}


def _of_rule(name: str) -> dict[str, bool]:
    """The settings of training that the merge rule decides."""
    facts = RULES[name].TRAITS
    return {"trains_a": facts.trains_a, "own_basis": facts.own_basis, "pruning": facts.prunes}
