"""A programmatic task on requests that may name more than an item: whether there is more decides what an agent calls.

    user: Hi, a glipu with nomber please, for Ada
    call: find_thing {"query": "glipu"}
    result: {"items": [{"thing_id": "glipu-281", "name": "glipu"}]}

What is next is to look up "nomber"; without it, to take the glipu. Greetings, names and amounts are no more than that.
"""

from __future__ import annotations

import json

from builtin_base.training.programmatic.dialogues import with_rules
from builtin_base.training.programmatic.values import Values

_SPEAKERS = (
    ("user", "call", "result"),
    ("human", "tool", "output"),
    ("customer", "action", "answer"),
    ("client", "run", "returns"),
    ("guest", "do", "got"),
)
_GREETINGS = ("", "", "", "hi, ", "Hello! ", "good morning, ", "Hey there. ", "ok, ")
_WISHES = (
    *("I would like {}", "can I get {}", "I want {}", "{}", "give me {}", "I'll have {}", "let me have {}"),
    *("I need {}", "could I just get {}", "get me {}", "I'd love {} today", "may I have {}", "I want to order {}"),
    *("could you make {}", "I'm here for {}", "I could really go for {}"),
)
_ENDS = (
    *("", "", "", " please", " please.", ".", "?", ", thanks", "!", " today", " now, please", " for {name}"),
    *(". My name is {name}", ", the name is {name}", " to start", " for me"),
)
_PLAIN = ("{item}", "{item}", "a {item}", "this {item}", "the {item}", "one {item}", "{amount} {item}", "just a {item}")
"""Ways to name an item and nothing beyond it."""

_ONE_MORE = (
    *("{item} with {extra}", "a {item} with {extra}", "a {extra} {item}", "{extra} {item}", "{item}, {extra}"),
    *("a {item} and {extra}", "{item} but {extra}", "one {item}, {extra} on it", "{amount} {item} with {extra}"),
    *("a {item}, make it {extra}", "the {item} without {extra}", "{item} with {extra} instead of {other}"),
    *("a {item}. {extra} please", "{item}, can it be {extra}?", "{item}. With {extra}", "one {item}. And {extra}"),
)
_TWO_MORE = (
    *("a {item} with {extra} and {second}", "a {extra} {item} with {second}", "{item}, {extra}, {second}"),
    *("{item} with {extra} but {second}", "one {extra} {item}, {second}", "{amount} {item}, {extra} and {second}"),
)
_JOINTS = (" OR ", " or ", ", ", " and ", " + ", "; ")


def look_or_take(values: Values) -> tuple[str, str]:
    """Write an agent's call after an item was found: look up what else was asked for, or take the item where nothing
    was. The rules stand in the source, at its start or at its end."""
    random = values.random
    user, call, result = random.choice(_SPEAKERS)
    find, look, take = values.distinct(values.function, 3)
    query, identifier, label, amount_key = values.distinct(values.key, 4)
    joint = random.choice(_JOINTS)
    item, extra, second, other = values.distinct(lambda: values.phrase(1, 2), 4)
    amount = str(random.randint(2, 12))
    n_more = random.choice((0, 0, 0, 1, 1, 2))
    asked = random.choice((_PLAIN, _ONE_MORE, _TWO_MORE)[n_more])
    wish = random.choice(_WISHES).format(asked) + random.choice(_ENDS)
    said = wish.format(item=item, extra=extra, second=second, other=other, amount=amount, name=values.name())
    found = [{identifier: f"{'-'.join(item.lower().split())}-{random.randint(100, 9999)}", label: item}]
    found += [{identifier: values.slug(), label: values.phrase(1, 2)} for _ in range(random.choice((0, 0, 1, 2)))]
    lines = [
        f"{user}: {random.choice(_GREETINGS)}{said}",
        f"{call}: {find} {json.dumps({query: item})}",
        f"{result}: {json.dumps({'items': found})}",
    ]
    key = found[0][identifier]
    if n_more:
        wanted = joint.join((extra, second)[:n_more])
        target = f"{call}: {look} {json.dumps({query: wanted, identifier: key})}"
    else:
        counted = amount if "{amount}" in asked else "1"
        target = f"{call}: {take} {json.dumps({identifier: key, amount_key: counted})}"
    rules = f"if more is asked, {look} has {query} (joined by {joint.strip()}), {identifier}; "
    rules += f"else {take} has {identifier}, {amount_key} (1 if none is said)"
    return with_rules(values, rules, lines), target
