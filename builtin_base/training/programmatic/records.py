"""Programmatic tasks on records: a field of a JSON object, a fact by its name, a call with given arguments."""

from __future__ import annotations

import json

from builtin_base.training.programmatic.values import Values

_RELATIONS = ("belongs to", "was sent by", "waits for", "was made by", "is near", "goes to")
_CALL_ORDERS = ("make {name} with {fields}", "call {name} using {fields}", "{name}: {fields}", "use {name}, {fields}")


def field(values: Values) -> tuple[str, str]:
    """Give the value of a key of a JSON object."""
    record = values.record(2, 8)
    key = values.random.choice(list(record))
    ask = values.random.choice(["value of {}", "{}?", "what is {} ?"]).format(key)
    text = json.dumps(record)
    return (f"{ask}\n{text}" if values.random.random() < 0.4 else f"record: {text}\n{ask}"), record[key]


def key_of(values: Values) -> tuple[str, str]:
    """Give the key that has a value."""
    record = values.record(2, 6)
    key = values.random.choice(list(record))
    if list(record.values()).count(record[key]) > 1:
        return field(values)
    return f"which key has {record[key]}?\n{json.dumps(record)}", key


def item_field(values: Values) -> tuple[str, str]:
    """Give a field of the one item in a JSON list that has a given name."""
    noun = values.word().lower()
    identifier, label, *more = values.distinct(values.key, values.random.randint(2, 4))
    names = values.distinct(values.phrase, values.random.randint(1, 6))
    items = []
    for name in names:
        own = name.lower().replace(" ", "-") + "-" + values.digits() if values.random.random() < 0.6 else values.slug()
        items.append({identifier: own, label: name, **{other: values.value() for other in more}})
    chosen = values.random.choice(items)
    return (
        f"result: {json.dumps({noun + 's': items})}\n{identifier} of {chosen[label]}",
        chosen[identifier],
    )


def nested_field(values: Values) -> tuple[str, str]:
    """Give a value by a path of two keys."""
    outer = {key: values.record(1, 3) for key in values.distinct(values.key, values.random.randint(2, 4))}
    first = values.random.choice(list(outer))
    second = values.random.choice(list(outer[first]))
    return f"{first}.{second} of {json.dumps(outer)}", outer[first][second]


def fact(values: Values) -> tuple[str, str]:
    """Give what one of several sentences says about a name."""
    names = values.distinct(values.name, values.random.randint(3, 9))
    rows = [(name, values.value(), values.random.choice(_RELATIONS), values.name()) for name in names]
    name, number, relation, other = values.random.choice(rows)
    text = "\n".join(f"{n} number {v} {r} {o}" for n, v, r, o in rows)
    if values.random.random() < 0.5:
        return f"facts:\n{text}\nwhich number has {name}?", number
    return f"{name} {relation} whom?\n{text}", other


def to_json(values: Values) -> tuple[str, str]:
    """Write named values as a JSON object."""
    record = values.record(1, 4)
    style = values.random.choice(["{} is {}", "{} = {}", "{}: {}"])
    return "to json: " + "; ".join(style.format(key, value) for key, value in record.items()), json.dumps(record)


def from_json(values: Values) -> tuple[str, str]:
    """Write a JSON object as a sentence by a pattern."""
    record = values.record(1, 3)
    keys = list(record)
    values.random.shuffle(keys)
    words = [values.phrase(1, 3) for _ in keys]
    pattern = " ".join(f"{word} <{key}>" for word, key in zip(words, keys, strict=True))
    filled = " ".join(f"{word} {record[key]}" for word, key in zip(words, keys, strict=True))
    return f"fill: {pattern}\nwith {json.dumps(record)}", filled


def call(values: Values) -> tuple[str, str]:
    """Write a call of a function with given arguments, among notes that do not matter."""
    record, name = values.record(1, 3), values.function()
    fields = " and ".join(f"{key} = {value}" for key, value in record.items())
    lines = [f"note: {values.sentence()}" for _ in range(values.random.randint(0, 3))]
    lines.insert(
        values.random.randint(0, len(lines)), values.random.choice(_CALL_ORDERS).format(name=name, fields=fields)
    )
    style = values.random.randrange(3)
    if style == 0:
        return "write code:\n" + "\n".join(
            lines
        ), f"{name}({', '.join(f'{k}={json.dumps(v)}' for k, v in record.items())})"
    prefix = "call: " if style == 1 else ""
    return f"write {prefix}name and json:\n" + "\n".join(lines), f"{prefix}{name} {json.dumps(record)}"
