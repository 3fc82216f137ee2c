"""run.toml: what `init` writes is what `load` reads, and every mistake is named with what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from aggregator.errors import ConfigError
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.settings.keys import KEYS, Key, template
from aggregator.settings.runfile import load, parse
from wire.codec import decode, encode
from wire.run import Personal, RewardLearning, TrainSettings

GIVEN = {"model.path": "/base", "model.digest": "a" * 64}


def test_the_template_reads_back_as_the_defaults() -> None:
    """The file that `init` writes holds every key, explained, with its default."""
    text = template(GIVEN)

    config = parse(text, Path("/srv/run.toml"))

    assert (config.rounds.total, config.rounds.quorum) == (6, 2)
    assert (config.train.scope, config.merge.max_rank) == ("decoder", 16)
    for key in KEYS:
        assert f"# {key.help}" in text
    assert parse(template(GIVEN).replace("/base", "base"), Path("/srv/run.toml")).model.path == Path("/srv/base")


def test_boards_hear_of_rewards_only_where_they_learn_from_them() -> None:
    """The section may be there in any run; without the objective nothing of it is sent, not even a name."""
    text = template({**GIVEN, "reward.samples": 8, "reward.warm_rounds": 1})

    silent = parse(text, Path("run.toml")).train
    told = parse(text.replace('objective = "likelihood"', 'objective = "reward"'), Path("run.toml")).train

    assert b"reward" not in encode(silent)
    assert silent.rewards_in(5) is None
    assert told.rewards_in(1) is None
    assert told.rewards_in(2) == RewardLearning(samples=8, warm_rounds=1)
    assert decode(encode(told), TrainSettings) == told


@pytest.mark.parametrize(("name", "value"), [("nested", 3), ("cooldown", 0.5)])
def test_boards_hear_of_a_way_to_train_only_where_it_is_wanted(name: str, value: float) -> None:
    """Where it is 0, nothing of it is sent, not even the name."""
    silent, told = (parse(template({**GIVEN, f"train.{name}": it}), Path("run.toml")).train for it in (0, value))

    assert name.encode() not in encode(silent)
    assert (getattr(silent, name), getattr(told, name)) == (UNSET, value)
    assert decode(encode(told), TrainSettings) == told


@pytest.mark.parametrize("prefix", ["", "summarize: ", "  Read this.\n\tThen: ", "ä" * 1000, 'say "so"\\'])
def test_a_prefix_is_kept_to_the_last_space(prefix: str) -> None:
    """Line breaks and tabs too: it is a part of the text that a model learns from."""
    config = parse(template({**GIVEN, "train.prefix": prefix}), Path("run.toml"))

    assert config.train.text_form.prefix == prefix


@pytest.mark.parametrize("prefix", ["\x1b[2J", "a\rb", "\x00", "\x7f", "\x85", "a" * 1001, 3])
def test_a_prefix_that_no_board_would_take(prefix: object) -> None:
    """Control characters but for line break and tab, and pages of text, are refused by the key's name."""
    with pytest.raises(ConfigError, match=r"train\.prefix"):
        parse(template({**GIVEN, "train.prefix": prefix}), Path("run.toml"))


def test_a_prefix_that_leaves_no_room_for_text_is_refused_where_it_can_be_known() -> None:
    """Seven words take seven tokens or more; eos and a token of text are to follow."""
    values = {**GIVEN, "train.max_source_tokens": 8, "train.prefix": "one two three four five six seven: "}

    with pytest.raises(ConfigError, match=r"train\.prefix has 7 words.*8 tokens"):
        parse(template(values), Path("run.toml"))
    assert parse(template({**values, "train.max_source_tokens": 9}), Path("run.toml")).train.max_source_tokens == 9
    assert parse(template({**values, "train.max_source_tokens": 0}), Path("run.toml")).train.max_source_tokens == 0


@pytest.mark.parametrize(("key", "value"), [("max_source_tokens", 7), ("max_target_tokens", 1)])
def test_lengths_are_open_or_long_enough(key: str, value: int) -> None:
    """0 leaves them to the boards' texts; what is allowed is said."""
    with pytest.raises(ConfigError) as caught:
        parse(template({**GIVEN, f"train.{key}": value}), Path("run.toml"))

    assert caught.value.hint == f"Allowed is 0, or a whole number from {value + 1} to 8192."


@pytest.mark.parametrize("name", OPTIMISERS)
def test_eta_0_is_the_optimisers_own_step(name: str) -> None:
    """A run that names no eta takes the optimiser's; one that does takes that."""
    own = parse(template({**GIVEN, "merge.optimiser": name}), Path("run.toml")).merge.settings
    named = parse(template({**GIVEN, "merge.optimiser": name, "merge.eta": 0.3}), Path("run.toml")).merge.settings

    assert (own.eta, own.optimiser) == (OPTIMISERS[name].eta, OPTIMISERS[name])
    assert (named.eta, named.optimiser) == (0.3, OPTIMISERS[name])


@settings(max_examples=50)
@given(st.sampled_from(KEYS), st.data())
def test_values_survive_being_written_and_read(key: Key, data: st.DataObject) -> None:
    """Any allowed value of any key comes back unchanged."""
    if key.path == "model.revision":
        value: Any = data.draw(st.one_of(st.just(""), st.text("0123456789abcdef", min_size=40, max_size=40)))
    elif isinstance(key.default, str) and not key.choices:
        printable = st.characters(exclude_categories=["Cs", "Cc"])
        value = data.draw(st.text(printable, min_size=int(key.low), max_size=min(int(key.high), 100)))
        if not key.low <= len(value) <= key.high:
            return
    elif key.choices:
        value = data.draw(st.sampled_from(key.choices))
        value = [value] if isinstance(key.default, tuple) else value
    elif isinstance(key.default, int):
        value = data.draw(st.integers(int(key.low), int(key.high)))
    else:
        value = data.draw(st.floats(key.low, key.high, exclude_min=key.above))
    values = {**GIVEN, key.path: value}
    if key.name in ("batch", "micro_batch"):
        values |= {"train.batch": value, "train.micro_batch": value}
    if key.name in ("min_devices", "quorum"):
        values |= {"rounds.min_devices": value, "rounds.quorum": value}
    if key.path == "model.revision":
        values["model.id"] = "google/flan-t5-small"
    if key.path == "merge.drift":
        values["merge.rule"] = "weave"
    if key.path == "merge.defence":
        values |= {"rounds.min_devices": 10, "rounds.quorum": 10}
    if key.path == "train.rank":
        values["merge.max_rank"] = max(value, 1)
    if key.path == "merge.rule":
        values["train.rank"] = 1

    config = parse(template(values), Path("/srv/run.toml"))

    places = {"run.name": config.name, "model.id": config.model.id, "train.scope": config.train.scope}
    known = {
        **places,
        "merge.eta": config.merge.eta,
        "run.rounds": config.rounds.total,
        "rounds.grace_s": config.rounds.grace_s,
    }
    if key.path in known:
        assert known[key.path] == value


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[train]\nlearning_rat = 1", ["unknown key train.learning_rat", "run.toml", "learning_rate"]),
        ("[trian]\nx = 1", ["unknown key 'trian'", "train"]),
        ("x = 1", ["unknown key 'x'"]),
        ("[rounds]\nquorum = 3", ["rounds.quorum = 3", "rounds.min_devices = 2"]),
        ("[rounds]\nquorum = 0", ["rounds.quorum = 0", "from 1 to"]),
        ("[rounds]\nquorum = 2.5", ["rounds.quorum = 2.5", "whole number"]),
        ("[rounds]\nquorum = true", ["rounds.quorum = True"]),
        ("[rounds]\ndeadline_s = nan", ["rounds.deadline_s = nan"]),
        ("[train]\nlearning_rate = 0", ["train.learning_rate = 0", "above 0"]),
        ("[train]\ntargets = []", ["train.targets", "one or more of"]),
        ('[train]\ntargets = ["q", "q"]', ["train.targets", "each once"]),
        ('[merge]\nrule = "mean"', ["merge.rule = 'mean'", '"braid"']),
        ('[merge]\nrule = "fedavg"', ["merge.rule = fedavg", "train.rank = 0"]),
        ('[rounds]\nmode = "asynchronous"\nstaleness_limit = 0', ["rounds.staleness_limit = 0", "synchronous"]),
        ('[rounds]\nmode = "asynchronous"\n[merge]\nrule = "flexlora"', ["merge.rule = flexlora", "braid"]),
        ('[rounds]\nstaleness_limit = 3\n[merge]\nrule = "flexlora"', ["rounds.staleness_limit = 3", "braid"]),
        ('[merge]\noptimiser = "sgd"', ["merge.optimiser = 'sgd'", '"none", "momentum", "nesterov"']),
        ("[merge]\neta = -0.5", ["merge.eta = -0.5", "from 0 to 10"]),
        ("[train]\nbatch = 2", ["train.micro_batch = 4", "train.batch = 2"]),
        ('[train]\nimportance = "fedpipe"', ["train.importance = 'fedpipe'", '"sketch", "adalora"']),
        ('[run]\nname = "a\\u0007"', ["run.name", "control character"]),
        ("[personal]\nrank = -1", ["personal.rank = -1", "from 0 to 256"]),
        ('[personal]\nrank = 2\nmethod = "lora"', ["personal.method = 'lora'", '"pftt", "local"']),
        ('[personal]\nrank = 2\nmethod = "fedrep"', ["personal.method = fedrep", "personal.local_blocks"]),
        (
            '[personal]\nrank = 2\nmethod = "fedrep"\nlocal_blocks = 1\n[train]\nrank = 4',
            ["personal.method = fedrep", "train.rank = 4"],
        ),
        ("[train]\nkeep = -1", ["train.keep = -1", "from 0 to"]),
        ("[train]\nkeep = nan", ["train.keep = nan"]),
        ('[train]\nkeep = 1\n[merge]\nrule = "fresh"', ["train.keep = 1", "merge.rule = fresh", "weave"]),
        ("[train]\nnested = 1", ["train.nested = 1", "0, or a whole number from 2 to 8"]),
        ("[train]\nnested = 9", ["train.nested = 9"]),
        ("[train]\ncooldown = 1.5", ["train.cooldown = 1.5"]),
        ('[train]\nnested = 2\nobjective = "reward"', ["train.nested = 2", "train.objective = reward"]),
        ("[merge]\ndrift = -1", ["merge.drift = -1", "from 0 to 1000"]),
        ('[merge]\ndrift = 1\nrule = "fresh"', ["merge.drift = 1", "merge.rule = fresh", "weave", "braid"]),
        ("[run\n", ["is not TOML"]),
    ],
)
def test_every_mistake_names_key_value_and_what_is_allowed(line: str, told: list[str]) -> None:
    """One clear error for each way in which a run.toml can be wrong."""
    head = f'{line}\n[model]\npath = "/base"\ndigest = "{"a" * 64}"\n'

    with pytest.raises(ConfigError) as caught:
        parse(head, Path("run.toml"))

    text = f"{caught.value.message} {caught.value.hint}"
    for part in [*told, "run.toml"]:
        assert part in text


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """`serve` on an empty folder names `aggregator init`."""
    with pytest.raises(ConfigError, match="There is no") as caught:
        load(tmp_path / "run.toml")

    assert "aggregator init" in caught.value.hint


def test_boards_are_told_of_local_strands_only_where_there_are_some() -> None:
    """A run without them sends not one byte of them; with them boards get what run.toml says."""
    without = parse(template(GIVEN), Path("run.toml")).train
    some = {"personal.rank": 2, "personal.targets": ["q"], "personal.when": "after", "personal.method": "apfl"}
    told = parse(template({**GIVEN, **some}), Path("run.toml")).train

    assert b"personal" not in encode(without)
    assert told.personal == Personal(rank=2, targets=("q",), when="after", method="apfl")
