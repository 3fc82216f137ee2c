"""run.toml: every key once, with its meaning and its bounds; read into one frozen `RunConfig`.

`KEYS` is the only list: the file that `aggregator init` writes, the checks and the documentation come from it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import msgspec

from aggregator.errors import ConfigError
from aggregator.merge.rules import RULES
from wire.limits import MAX_NAME_CHARS, MAX_RANK, MAX_ROUNDS
from wire.messages import Importance, TrainSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TARGETS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
"""Last parts of the names of the weights that may be trained."""

MAX_DEVICES = 10_000
"""Devices that one run enrols; also the bound of `min_devices` and `quorum`."""

MAX_WAIT_S = 30 * 24 * 3600.0
"""Longest deadline: a month. A longer one is a mistake in the unit."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # names go into messages and onto terminals

MAX_CONFIG_BYTES = 64 * 1024
"""run.toml as written has 4 kB."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of run.toml. `low` and `high` bound numbers and the length of texts; `choices` end the discussion."""

    section: str
    name: str
    default: Any
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: Sequence[str] = ()
    above: bool = False  # `low` itself is not allowed

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def allowed(self) -> str:
        """What may stand here, as a phrase."""
        if self.choices:
            some = ", ".join(json.dumps(choice) for choice in self.choices)
            return f"one or more of [{some}], each once" if isinstance(self.default, tuple) else f"one of {some}"
        if isinstance(self.default, str):
            return f"a text of {self.low:.0f} to {self.high:.0f} characters, none of them a control character"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        return f"{kind} {'above' if self.above else 'from'} {self.low:g} to {self.high:g}"


KEYS: tuple[Key, ...] = (
    Key("run", "name", "braid", "what people call this run; no influence on training", 1, 60),
    Key("run", "seed", 1, "every random choice of the run derives from it", 0, 2**53),
    Key("run", "rounds", 6, "rounds of training; may be raised later to go on", 1, MAX_ROUNDS),
    Key("model", "path", "", "folder of the base model on this machine", 1, 4096),
    Key("model", "id", "builtin", "what boards pass to --model: builtin, a hub id or a folder", 1, MAX_NAME_CHARS),
    Key("model", "digest", "", "digest of the base, written by init; every board compares its own", 64, 64),
    Key(
        "train",
        "scope",
        "decoder",
        "decoder: the encoder stays frozen (cheap); all: train both",
        choices=("decoder", "all"),
    ),
    Key("train", "targets", TARGETS, "which matrices may get strands", choices=TARGETS),
    Key("train", "learning_rate", 0.005, "boards' step size; they choose no other", 0, 100, above=True),
    Key("train", "batch", 16, "examples per optimiser step", 1, 4096),
    Key("train", "micro_batch", 4, "examples per backward pass; a small board may lower it", 1, 4096),
    Key("train", "local_steps", 20, "optimiser steps per board and round", 1, 100_000),
    Key("train", "max_source_tokens", 192, "longer inputs are cut", 8, 8192),
    Key("train", "max_target_tokens", 32, "longer targets are cut", 2, 8192),
    Key("train", "sketch_batches", 8, "micro-batches that feed a gradient sketch", 1, 1024),
    Key("train", "upload", "bf16", "number format of uploads", choices=("fp32", "bf16", "int8", "int4")),
    Key(
        "train",
        "importance",
        "magnitude_gradient",
        "what ranks the weights: a score that boards take when they profile, or their gradient sketches alone",
        choices=get_args(Importance),
    ),
    Key("rounds", "min_devices", 2, "boards that must have profiled before the first round", 1, MAX_DEVICES),
    Key("rounds", "quorum", 2, "accepted updates without which no round closes", 1, MAX_DEVICES),
    Key("rounds", "deadline_s", 1800.0, "a round with a quorum closes after this at the latest", 1, MAX_WAIT_S),
    Key("rounds", "grace_s", 300.0, "how long a reached quorum waits for the other live boards", 0, MAX_WAIT_S),
    Key("rounds", "liveness_s", 120.0, "a board not heard of for this long is not waited for", 1, MAX_WAIT_S),
    Key("rounds", "profile_deadline_s", 1800.0, "profiling ends after this if any board has profiled", 1, MAX_WAIT_S),
    Key("merge", "rule", "braid", "how updates are merged", choices=tuple(RULES)),
    Key("merge", "server_rank", 32, "rank of the global adapter, at most", 1, MAX_RANK),
    Key("merge", "max_rank", 16, "strands per weight that a board may train, at most", 1, MAX_RANK),
    Key("merge", "eta", 1.0, "server step: share of the mean update that is applied", 0, 10, above=True),
    Key("merge", "sketch_every", 2, "a new basis every so many rounds (1: each)", 1, MAX_ROUNDS),
)

FROZEN = (
    *("model_digest", "train_scope", "train_importance", "targets"),
    *("rule", "max_rank", "server_rank", "seed"),
)
"""What a run may not change once its first board has enrolled: boards' files and bases depend on it."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """run.toml, checked. Field names are those of the file where they are unique."""

    name: str
    seed: int
    rounds: int
    model_path: Path
    model_id: str
    model_digest: str
    targets: tuple[str, ...]
    train: TrainSettings
    min_devices: int
    quorum: int
    deadline_s: float
    grace_s: float
    liveness_s: float
    profile_deadline_s: float
    rule: str
    server_rank: int
    max_rank: int
    eta: float
    sketch_every: int
    source: Path = field(default=Path("run.toml"), compare=False)

    def frozen_values(self) -> dict[str, Any]:
        """The values that bind a run for its whole life, as JSON has them."""
        values = {
            key: getattr(self.train, key.removeprefix("train_")) if key.startswith("train_") else getattr(self, key)
            for key in FROZEN
        }
        return {**values, "targets": list(self.targets)}


def parse(text: str, source: Path) -> RunConfig:
    """Read run.toml's text. Raises ConfigError naming file, key, value and what is allowed."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{source} is not TOML: {error}", "Mend the line, or write a new file with `aggregator init`."
        ) from error
    values = _checked(document, source)
    train_keys = [key.name for key in KEYS if key.section == "train" and key.name != "targets"]
    train = {name: values[f"train.{name}"] for name in train_keys}
    rest = {key.name: values[key.path] for key in KEYS if key.section in ("rounds", "merge")}
    config = RunConfig(
        name=values["run.name"],
        seed=values["run.seed"],
        rounds=values["run.rounds"],
        model_path=Path(values["model.path"]),
        model_id=values["model.id"],
        model_digest=values["model.digest"],
        targets=tuple(part for part in TARGETS if part in values["train.targets"]),
        train=msgspec.convert({**train, "seed": values["run.seed"]}, TrainSettings),
        source=source,
        **rest,
    )
    return _consistent(config)


def load(path: Path) -> RunConfig:
    """Read and check a run.toml. Raises ConfigError."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes", "Is it a run.toml?")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no {path}.", f"Make one with `aggregator init {path.parent}`.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "Check its permissions and encoding (UTF-8).") from error
    return parse(text, path)


def template(values: Mapping[str, Any]) -> str:
    """Write a run.toml with every key explained; `values` ("section.name") replace defaults."""
    lines = ["# A Braid run. Keys that are left out keep the value shown here; unknown keys are an error."]
    section = ""
    for key in KEYS:
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"]
        lines.append(f"{key.name} = {_toml(values.get(key.path, key.default))}  # {key.help}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A scalar or list as TOML: JSON's are TOML's too, but for DEL and for JSON's escapes beyond the BMP."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
        path: _value(key, document.get(key.section, {}).get(key.name, key.default), source)
        for path, key in known.items()
    }


def _value(key: Key, value: Any, source: Path) -> Any:
    """The value in its own type, or ConfigError."""
    ok = False
    if isinstance(key.default, tuple):
        ok = isinstance(value, (list, tuple)) and 0 < len(value) == len({str(item) for item in value})
        ok = ok and all(item in key.choices for item in value)
    elif key.choices:
        ok = isinstance(value, str) and value in key.choices
    elif isinstance(key.default, str):
        ok = isinstance(value, str) and key.low <= len(value) <= key.high and not _CONTROL.search(value)
    elif not isinstance(value, bool) and isinstance(value, (int, float)):
        ok = key.low <= value <= key.high and (value > key.low or not key.above)
        ok = ok and not (isinstance(key.default, int) and isinstance(value, float))
    if not ok:
        raise ConfigError(f"{source}: {key.path} = {value!r} is not allowed", f"Allowed is {key.allowed}.")
    return float(value) if isinstance(key.default, float) else value


def _consistent(config: RunConfig) -> RunConfig:
    """Checks that concern two keys. Returns the config with an absolute model folder."""
    if config.train.micro_batch > config.train.batch:
        raise ConfigError(
            f"{config.source}: train.micro_batch = {config.train.micro_batch} is larger than train.batch = "
            f"{config.train.batch}",
            "Allowed is at most train.batch.",
        )
    if config.quorum > config.min_devices:
        raise ConfigError(
            f"{config.source}: rounds.quorum = {config.quorum} is larger than rounds.min_devices = "
            f"{config.min_devices}: training would begin with too few boards for any round to close",
            "Lower rounds.quorum or raise rounds.min_devices.",
        )
    folder = config.model_path
    return config if folder.is_absolute() else replace(config, model_path=config.source.parent / folder)
