"""Programmatic tasks on dialogues: the next call of an agent, the last mention of a value, what somebody said.

The names of speakers, functions and fields are drawn anew each time, so that a model has to read them in the source.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from builtin_base.training.programmatic.values import Values

_SPEAKERS = (
    ("user", "say", "call", "result"),
    ("user", "assistant", "call", "result"),
    ("human", "agent", "tool", "output"),
    ("customer", "clerk", "action", "answer"),
    ("client", "bot", "run", "returns"),
)
_WISHES = (
    *("I would like {}", "can I get {} please", "I want {}", "{} please", "do you have {}?", "give me {}"),
    *("I'm looking for {}", "let me have {}", "what about {}?", "hi, could you find {} for me?", "I need {} today"),
    *("get me {}", "hello, I'd like {}", "Is there {}?", "one {}", "I'll take {}", "may I have {} for {other}?"),
)
_CHANGES = (
    "no, make that {}",
    "sorry, I meant {}",
    "actually {}",
    "change it to {}",
    "{} instead, please",
    "rather {}",
)
_YES = ("yes", "that's right", "yes please", "sure", "ok", "sounds good", "correct")


@dataclass(frozen=True, slots=True)
class _Script:
    """A domain made up for one dialogue: who speaks, what is searched and by which functions."""

    user: str
    agent: str
    call: str
    result: str
    find: str
    query: str
    take: str
    identifier: str
    label: str
    extra: str


def _script(values: Values) -> _Script:
    find, take = values.distinct(values.function, 2)
    query, identifier, label, extra = values.distinct(values.key, 4)
    if values.random.random() < 0.6:
        identifier, label = f"{values.made_up()}_id", f"{label}_name"
    return _Script(*values.random.choice(_SPEAKERS), find, query, take, identifier, label, extra)


def next_step(values: Values) -> tuple[str, str]:
    """Write an agent's next step: search for what was asked, then take the identifier from the result.

    The rules stand in the source, at its start or at its end; a finished dialogue of the same kind may come before.
    """
    script = _script(values)
    rules = f"{script.call}: {script.find} has {script.query}; {script.take} has {script.identifier}, {script.extra}"
    rules += f"; then {script.agent}: it is done."
    lines: list[str] = []
    if values.random.random() < 0.4:
        lines += _episode(values, script, 3)[0]
    steps, target = _episode(values, script, values.random.choice([1, 2, 2, 2, 3]))
    noise = [f"{script.user}: {values.sentence()}" for _ in range(values.random.choice([0, 0, 1, 2]))]
    lines = [*noise, *lines, *steps]
    return with_rules(values, rules, lines), target


def with_rules(values: Values, rules: str, lines: list[str]) -> str:
    """Write a dialogue's lines with the rules of its calls before or behind them."""
    text = "\n".join(lines)
    return f"{rules}\n{text}" if values.random.random() < 0.5 else f"{text}\nrules: {rules}"


def _episode(values: Values, script: _Script, n_steps: int) -> tuple[list[str], str]:
    """Make the lines of one errand up to its step number `n_steps`, and that step, which 3 says in words."""
    wanted, n_others = values.phrase(1, 3), values.random.randint(0, 3)
    amount = values.digits(2) if values.random.random() < 0.5 else values.word().lower()
    wish = values.random.choice(_WISHES).format(wanted, other=values.name())
    lines = [f"{script.user}: {wish}"]
    if values.random.random() < 0.3:
        wanted = values.phrase(1, 3)
        lines += [f"{script.agent}: {values.sentence()}", f"{script.user}: {_change(values, wanted)}"]
    lines.append(f"{script.user}: {script.extra} {amount}")
    search = f"{script.call}: {script.find} {json.dumps({script.query: wanted})}"
    if n_steps == 1:
        return lines, search
    names = [wanted, *(values.phrase(1, 3) for _ in range(n_others))]
    values.random.shuffle(names)
    items = [{script.identifier: _identifier(values, name), script.label: name} for name in names]
    chosen = next(item for item in items if item[script.label] == wanted)
    lines += [search, f"{script.result}: {json.dumps({'items': items})}"]
    take = {script.identifier: chosen[script.identifier], script.extra: amount}
    step = f"{script.call}: {script.take} {json.dumps(take)}"
    if n_steps == 2:
        return lines, step
    lines += [step, f"{script.result}: {json.dumps({'done': values.random.choice(['yes', 'true', 'ok'])})}"]
    return lines, f"{script.agent}: {wanted} is done."


def last_mention(values: Values) -> tuple[str, str]:
    """Give the latest value of a field that a dialogue changes again and again."""
    keys = values.distinct(values.key, values.random.randint(1, 3))
    user, agent, *_ = values.random.choice(_SPEAKERS)
    latest: dict[str, str] = {}
    lines = []
    for key in [*keys, *(values.random.choice(keys) for _ in range(values.random.randint(0, 4)))]:
        latest[key] = values.value()
        verb = values.random.choice(["the {} is {}", "{} : {}", "please set {} to {}", "make the {} {}"])
        lines.append(f"{user}: {verb.format(key, latest[key])}")
        if values.random.random() < 0.4:
            lines.append(f"{agent}: {values.random.choice([*_YES, values.sentence()])}")
    key = values.random.choice(keys)
    if values.random.random() < 0.4:
        record = dict(sorted(latest.items()))
        return "state as json:\n" + "\n".join(lines), json.dumps(record)
    return "\n".join([*lines, f"last value of {key}"]), latest[key]


def who_said(values: Values) -> tuple[str, str]:
    """Name the speaker of a sentence, or repeat what a speaker said last."""
    names = values.distinct(values.name, values.random.randint(2, 4))
    said = [(values.random.choice(names), " ".join(values.sentence().split()[:14])) for _ in range(_some(values))]
    text = "\n".join(f"{name}: {sentence}" for name, sentence in said)
    name, sentence = values.random.choice(said)
    if values.random.random() < 0.3 and [s for _, s in said].count(sentence) == 1:
        return f"who said: {sentence}\n{text}", name
    return f"{text}\nlast words of {name}", next(s for n, s in reversed(said) if n == name)


def answer_from(values: Values) -> tuple[str, str]:
    """Answer in words with a value from a result, in a form that an earlier answer shows."""
    user, agent, _, result = values.random.choice(_SPEAKERS)
    key, before, after = values.key(), values.phrase(1, 3), values.random.choice(["", ".", " now.", " for you."])
    names = values.distinct(values.phrase, values.random.randint(2, 3))
    lines, target = [], ""
    for name in names:
        value = values.value()
        fields = {"name": name, key: value, **values.record(0, 2)}
        lines += [f"{user}: {values.random.choice(_WISHES).format(name, other=values.name())}"]
        lines += [f"{result}: {json.dumps(fields)}"]
        target = f"{agent}: {before} {name} {key} {fields[key]}{after}"
        lines.append(target)
    return "\n".join(lines[:-1]), target


def _change(values: Values, wanted: str) -> str:
    return values.random.choice(_CHANGES).format(wanted)


def _identifier(values: Values, name: str) -> str:
    slug = "-".join(name.lower().split())
    return f"{slug}-{values.random.randint(100, 99999)}" if values.random.random() < 0.7 else values.slug()


def _some(values: Values) -> int:
    return values.random.randint(2, 7)
