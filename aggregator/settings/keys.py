"""run.toml: every key once, with its meaning and its bounds.

`KEYS` is the only list: the file that `aggregator init` writes, the checks and the documentation come from it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from aggregator.errors import ConfigError
from aggregator.merge.defences.defended import DEFENCES, NONE
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.rules import RULES
from braid_common.text_form import DEFAULT_PREFIX, Cut
from wire.limits import (
    MAX_NAME_CHARS,
    MAX_PREFIX_CHARS,
    MAX_RANK,
    MAX_ROUNDS,
    MAX_TEXT_TOKENS,
    MIN_SOURCE_TOKENS,
    MIN_TARGET_TOKENS,
)
from wire.run import MAX_NESTED, MAX_REUSE, MAX_SAMPLES, Advantage, Importance, KeepImportance, Method, Target, When

TARGETS: tuple[str, ...] = get_args(Target)
"""Last parts of the names of the weights that may be trained."""

MAX_DEVICES = 10_000
"""Devices that one run enrols; also the bound of `min_devices` and `quorum`."""

MAX_WAIT_S = 30 * 24 * 3600.0
"""Longest deadline: a month. A longer one is a mistake in the unit."""

MAX_STALENESS = 100
"""Largest `staleness_limit`: as many versions stay on disk, and an update of a hundred versions ago says little."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # names go into messages and onto terminals
_CONTROL_IN_PROMPTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # those that the wire refuses too


@dataclass(frozen=True, slots=True)
class Key:
    """One key of run.toml. `low` and `high` bound numbers and the length of texts; where there are
    `choices`, one of these must be taken. `or_zero`: 0 is allowed below `low` too; `is_prompt`: line breaks and tabs
    are allowed in the text."""

    section: str
    name: str
    default: Any
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: Sequence[str] = ()
    above: bool = False  # `low` itself is not allowed
    or_zero: bool = False
    is_prompt: bool = False

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def allowed(self) -> str:
        """The values that are allowed, as a phrase."""
        if self.choices:
            some = ", ".join(json.dumps(choice) for choice in self.choices)
            return f"one or more of [{some}], each once" if isinstance(self.default, tuple) else f"one of {some}"
        if isinstance(self.default, str):
            but = r", but for \n and \t" if self.is_prompt else ""
            return f"a text of {self.low:.0f} to {self.high:.0f} characters, none of them a control character{but}"
        kind = ("0, or " if self.or_zero else "") + ("a whole number" if isinstance(self.default, int) else "a number")
        return f"{kind} {'above' if self.above else 'from'} {self.low:g} to {self.high:g}"


KEYS: tuple[Key, ...] = (
    Key("run", "name", "braid", "what people call this run; no influence on training", 1, 60),
    Key("run", "seed", 1, "every random choice of the run derives from it", 0, 2**53),
    Key("run", "rounds", 6, "rounds of training; may be raised later to go on", 1, MAX_ROUNDS),
    Key("model", "path", "", "folder of the base model on this machine", 1, 4096),
    Key("model", "id", "builtin", "what boards pass to --model: builtin, a hub id or a folder", 1, MAX_NAME_CHARS),
    Key("model", "digest", "", "digest of the base, written by init; every board compares its own", 64, 64),
    Key(
        "model",
        "revision",
        "",
        "commit of a base from the hub, written by init; serve and boards fetch the same one",
        0,
        40,
    ),
    Key(
        "train",
        "scope",
        "decoder",
        "decoder: the encoder stays frozen (cheap); all: train both",
        choices=("decoder", "all"),
    ),
    Key("train", "targets", TARGETS, "which matrices may get strands", choices=TARGETS),
    Key("train", "learning_rate", 0.01, "boards' step size; they choose no other", 0, 100, above=True),
    Key(
        "train",
        "cooldown",
        0.0,
        "share of the run's rounds, its last ones, over which learning_rate falls in a line, such as 0.5; 0: it stays",
        0,
        1,
    ),
    Key("train", "batch", 16, "examples per optimiser step", 1, 4096),
    Key("train", "micro_batch", 4, "examples per backward pass; a small board may lower it", 1, 4096),
    Key("train", "local_steps", 20, "optimiser steps per board and round", 1, 100_000),
    Key(
        "train",
        "max_source_tokens",
        0,
        "longer sources, prefix included, are cut; 0: chosen to hold 95 % of the first boards' texts, 512 at most",
        MIN_SOURCE_TOKENS,
        MAX_TEXT_TOKENS,
        or_zero=True,
    ),
    Key(
        "train",
        "max_target_tokens",
        0,
        "longer targets are cut; 0: chosen in the same way, 128 at most",
        MIN_TARGET_TOKENS,
        MAX_TEXT_TOKENS,
        or_zero=True,
    ),
    Key(
        "train",
        "truncate_source",
        "end",
        "the part of a longer source that is left out; a dialogue needs its end: take start",
        choices=get_args(Cut),
    ),
    Key(
        "train",
        "prefix",
        DEFAULT_PREFIX,
        "words before every source, spaces included; never cut",
        0,
        MAX_PREFIX_CHARS,
        is_prompt=True,
    ),
    Key("train", "sketch_batches", 8, "micro-batches that feed a gradient sketch", 1, 1024),
    Key("train", "upload", "bf16", "number format of uploads", choices=("fp32", "bf16", "int8", "int4")),
    Key(
        "train",
        "importance",
        "magnitude_gradient",
        "what ranks the weights: a score that boards take when they profile, or their gradient sketches alone",
        choices=get_args(Importance),
    ),
    Key(
        "train",
        "objective",
        "likelihood",
        "what boards learn from: right answers, or rewards that each board configures for what it writes itself",
        choices=("likelihood", "reward"),
    ),
    Key("train", "rank", 0, "strands of every weight on every board; 0: as many as its memory allows", 0, MAX_RANK),
    Key("train", "keep", 0.0, "weight of a penalty on moving what matters to the received model; 0: none", 0, 1e6),
    Key(
        "train",
        "keep_importance",
        "fisher",
        "what matters by: fisher: each board's first gradients of a round; scores: the run's ranking",
        choices=get_args(KeepImportance),
    ),
    Key(
        "train",
        "nested",
        0,
        "nested ranks, each half the one before: a pass trains as many strands as one of them has; 0: all, always",
        2,
        MAX_NESTED,
        or_zero=True,
    ),
    Key(
        "personal",
        "rank",
        0,
        "strands per weight that each board trains for itself on top of the global adapter, never sent; 0: none",
        0,
        MAX_RANK,
    ),
    Key(
        "personal",
        "method",
        "pftt",
        "how they and the global adapter make up a board's model; docs/guide/personal.md compares them",
        choices=get_args(Method),
    ),
    Key("personal", "targets", TARGETS, "which of the trained matrices have them", choices=TARGETS),
    Key("personal", "learning_rate", 0.0, "their step size; 0: that of the global strands", 0, 100),
    Key(
        "personal",
        "when",
        "beside",
        "beside: in the steps of the global strands; after: in steps of their own, once the update is sent",
        choices=get_args(When),
    ),
    Key("personal", "steps", 0, "steps of their own in a round; 0: train.local_steps", 0, 100_000),
    Key("personal", "pull", 0.1, "ditto: weight of the term that draws a board's model to the global one", 0, 1e6),
    Key("personal", "mix", 0.5, "apfl: the local share of a board's model, before the board has learnt it", 0, 1),
    Key("personal", "local_blocks", 0, "fedrep: so many last blocks of the decoder are each board's own", 0, 1024),
    Key("reward", "samples", 4, "with train.objective = reward: answers to each example, compared", 2, MAX_SAMPLES),
    Key(
        "reward",
        "advantage",
        "group",
        "group: less the mean of an example's answers, by their deviation (GRPO); baseline: less the others' mean",
        choices=get_args(Advantage),
    ),
    Key("reward", "kl", 0.05, "weight of the distance to the adapter that a round begins with", 0, 100),
    Key("reward", "clip", 0.2, "how far from 1 a token's probability ratio counts", 0, 1, above=True),
    Key("reward", "reuse", 1, "optimiser steps on the same answers", 1, MAX_REUSE),
    Key("reward", "warm_rounds", 2, "first rounds, which learn from right answers", 0, MAX_ROUNDS),
    Key(
        "rounds",
        "mode",
        "synchronous",
        "synchronous: a round waits for its boards; asynchronous (FedBuff): it closes as soon as it has its quorum",
        choices=("synchronous", "asynchronous"),
    ),
    Key("rounds", "min_devices", 2, "boards that must have profiled before the first round", 1, MAX_DEVICES),
    Key("rounds", "quorum", 2, "accepted updates without which no round closes", 1, MAX_DEVICES),
    Key("rounds", "deadline_s", 1800.0, "a round with a quorum closes after this at the latest", 1, MAX_WAIT_S),
    Key("rounds", "grace_s", 300.0, "how long a reached quorum waits for the other live boards", 0, MAX_WAIT_S),
    Key("rounds", "liveness_s", 120.0, "a board not heard of for this long is not waited for", 1, MAX_WAIT_S),
    Key("rounds", "profile_deadline_s", 1800.0, "profiling ends after this if any board has profiled", 1, MAX_WAIT_S),
    Key(
        "rounds",
        "staleness_limit",
        -1,
        "versions an update may be behind and still count in a later round; 0: none; -1: 0, or 10 if asynchronous",
        -1,
        MAX_STALENESS,
    ),
    Key("rounds", "staleness_power", 0.5, "an update s versions behind has (1 + s)^-this of its weight", 0, 10),
    Key("merge", "rule", "fedsvd", "how updates are merged: docs/concepts/merging.md", choices=tuple(RULES)),
    Key(
        "merge",
        "defence",
        NONE,
        "what bad boards are held in check by; needs memory for all updates of a round",
        choices=(NONE, *DEFENCES),
    ),
    Key("merge", "attackers", 0.2, "share of a round's boards that may be bad, for the defence", 0, 0.49, above=True),
    Key(
        "merge",
        "max_weight",
        3.0,
        "a board counts as at most so many boards of the middle example count of its round; 0: as it claims",
        1,
        1e6,
        or_zero=True,
    ),
    Key(
        "merge",
        "fairness",
        0.0,
        "q of q-FFL: a board counts (its loss / the mean)^q times as much; 0: loss is no matter",
        0,
        10,
    ),
    Key(
        "merge",
        "drift",
        0.0,
        "a board that leaves out a share d of the model counts 1 / (1 + this * d) times as much (FedHL); 0: as others",
        0,
        1000,
    ),
    Key("merge", "server_rank", 16, "rank of the global adapter, at most; boards are sent all of it", 1, MAX_RANK),
    Key("merge", "max_rank", 16, "strands per weight that a board may train, at most", 1, MAX_RANK),
    Key(
        "merge",
        "optimiser",
        "none",
        "what the server makes of a round's mean change and of those before",
        choices=tuple(OPTIMISERS),
    ),
    Key("merge", "eta", 0.0, "server step, which multiplies what the optimiser gives; 0: the optimiser's own", 0, 10),
    Key(
        "merge",
        "sketch_every",
        2,
        "a new basis every so many rounds (1: each), where the rule makes it of gradient sketches",
        1,
        MAX_ROUNDS,
    ),
)


def template(values: Mapping[str, Any]) -> str:
    """Write a run.toml with every key explained; `values` ("section.name") replace defaults."""
    lines = ["# A Braid run. Keys that are left out keep the value shown here; unknown keys are an error."]
    section = ""
    for key in KEYS:
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"]
        lines += _comment(key)
        lines.append(f"{key.name} = {_toml(values.get(key.path, key.default))}  # {key.help}")
    return "\n".join(lines) + "\n"


def _comment(key: Key) -> list[str]:
    """The comment above a choice between merge rules, defences or optimisers: a line on each."""
    summaries = {
        "merge.rule": {name: rule.TRAITS.summary for name, rule in RULES.items()},
        "merge.defence": {name: defence.SUMMARY for name, defence in DEFENCES.items()},
        "merge.optimiser": {name: optimiser.summary for name, optimiser in OPTIMISERS.items()},
    }.get(key.path, {})
    width = max(map(len, summaries), default=0)
    return [f"#   {name:{width}}  {summary}" for name, summary in summaries.items()]


def _toml(value: Any) -> str:
    """A scalar or list as TOML: JSON's are TOML's too, but for DEL and for JSON's escapes beyond the BMP."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def checked(key: Key, value: Any, source: Path) -> Any:
    """The value in its own type. Raises ConfigError, which says what `source` may have there."""
    ok = False
    if isinstance(key.default, tuple):
        ok = isinstance(value, (list, tuple)) and 0 < len(value) == len({str(item) for item in value})
        ok = ok and all(item in key.choices for item in value)
    elif key.choices:
        ok = isinstance(value, str) and value in key.choices
    elif isinstance(key.default, str):
        control = _CONTROL_IN_PROMPTS if key.is_prompt else _CONTROL
        ok = isinstance(value, str) and key.low <= len(value) <= key.high and not control.search(value)
    elif not isinstance(value, bool) and isinstance(value, (int, float)):
        ok = key.low <= value <= key.high and (value > key.low or not key.above)
        ok = ok or (key.or_zero and value == 0)
        ok = ok and not (isinstance(key.default, int) and isinstance(value, float))
    if not ok:
        raise ConfigError(f"{source}: {key.path} = {value!r} is not allowed", f"Allowed is {key.allowed}.")
    return float(value) if isinstance(key.default, float) else value
