"""Chat with tool calls, in the ways in which APIs and data sets write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.data.shapes.calls import calls_of, spell_call
from edge_client.data.shapes.conversation import MAX_CONVERSATION_CHARS
from tests.fakes.data_files import examples, read, write_jsonl

ARGUMENTS = {"unit": "°C", "city": "Oslo"}
CALL = 'call: get_weather {"city": "Oslo", "unit": "°C"}'
RESULT = '{"celsius": 4}'

STEPS = [
    ("system: Be brief.\nuser: How warm is it in Oslo?", CALL),
    (f"system: Be brief.\nuser: How warm is it in Oslo?\n{CALL}\nresult: {RESULT}", "4 degrees."),
    (
        f"system: Be brief.\nuser: How warm is it in Oslo?\n{CALL}\nresult: {RESULT}\n"
        "assistant: 4 degrees.\nuser: Thanks",
        "You are welcome.",
    ),
]
"""The same conversation, whoever wrote it down: what is read and what is written at each step."""


def openai(arguments: object, **call: object) -> list[dict[str, Any]]:
    """The conversation as the usual chat API has it; `call` are further keys of the message that calls."""
    calls = [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}]
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How warm is it in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": calls, **call},
        {"role": "tool", "tool_call_id": "c1", "content": RESULT},
        {"role": "assistant", "content": "4 degrees."},
        {"role": "user", "content": [{"type": "text", "text": "Thanks"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "You are welcome."}]},
    ]


def sharegpt(call: str, caller: str = "function_call", tool: str = "observation") -> list[dict[str, str]]:
    turns = [
        ("system", "Be brief."),
        ("human", "How warm is it in Oslo?"),
        (caller, call),
        (tool, RESULT),
        ("gpt", "4 degrees."),
        ("human", "Thanks"),
        ("gpt", "You are welcome."),
    ]
    return [{"from": role, "value": value} for role, value in turns]


ANTHROPIC = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "How warm is it in Oslo?"}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "get_weather", "input": ARGUMENTS}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": RESULT}]},
    {"role": "assistant", "content": "4 degrees."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": [{"type": "text", "text": "You are welcome."}]},
]

JSON_CALL = json.dumps({"name": "get_weather", "arguments": ARGUMENTS})
GLAIVE = (
    "USER: How warm is it in Oslo?\n\n\nASSISTANT: <functioncall> "
    f'{{"name": "get_weather", "arguments": \'{json.dumps(ARGUMENTS)}\'}} <|endoftext|>\n\n\n'
    f"FUNCTION RESPONSE: {RESULT}\n\n\nASSISTANT: 4 degrees. <|endoftext|>\n\n\n"
    "USER: Thanks\n\n\nASSISTANT: You are welcome. <|endoftext|>\n\n\n"
)

CHATS: dict[str, object] = {
    "arguments as a string": {"messages": openai(json.dumps(ARGUMENTS)), "tools": [{"type": "function"}]},
    "arguments as an object": {"messages": openai(ARGUMENTS)},
    "a call without the outer object": {
        "messages": openai("", tool_calls=[{"name": "get_weather", "arguments": ARGUMENTS}])
    },
    "the call as it was before": {
        "messages": openai(
            "", tool_calls=None, function_call={"name": "get_weather", "arguments": json.dumps(ARGUMENTS)}
        )
    },
    "blocks": {"messages": ANTHROPIC},
    "from and value": {"conversations": sharegpt(JSON_CALL)},
    "calls between tags": {"Conversations": sharegpt(f"<tool_call>\n{JSON_CALL}\n</tool_call>", "gpt", "tool")},
    "system in a column": {"system": "Be brief.", "conversations": sharegpt(JSON_CALL)[1:]},
    "a bare list": openai(ARGUMENTS),
    "a prompt and its completion": {"prompt": openai(ARGUMENTS)[:2], "completion": openai(ARGUMENTS)[2:]},
    "the better of two": {"chosen": openai(ARGUMENTS), "rejected": openai(ARGUMENTS)[:3]},
    "a list in a string": {"messages": json.dumps(openai(ARGUMENTS))},
    "a transcript": {"system": "SYSTEM: Be brief.", "chat": GLAIVE},
}


@pytest.mark.parametrize("kind", CHATS)
def test_each_turn_of_the_assistant_is_an_example(kind: str, tmp_path: Path) -> None:
    """However it is written, the same conversation gives the same texts, call and all."""
    path = write_jsonl(tmp_path / "chat.jsonl", [CHATS[kind]] * 2)

    assert examples(path) == STEPS * 2
    assert read(path).n_skipped == 0


def test_columns_of_a_chat_are_named(tmp_path: Path) -> None:
    """The definitions of tools are not part of the text: so they are named as ignored."""
    findings = read(write_jsonl(tmp_path / "a.jsonl", [CHATS["arguments as a string"]])).findings

    assert (findings.source_columns, findings.target_columns) == (("messages",), ("messages",))
    assert findings.ignored_columns == ("tools",)


def test_words_and_several_calls_in_one_turn(tmp_path: Path) -> None:
    """Words first, then each call on a line; in the source the words are the assistant's."""
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    messages = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "assistant", "content": "Done.", "weight": 1},
    ]

    found = examples(write_jsonl(tmp_path / "a.jsonl", [{"messages": messages}]))

    assert found == [
        ("user: Go", "I look.\ncall: a {}\ncall: b {}"),
        ("user: Go\nassistant: I look.\ncall: a {}\ncall: b {}", "Done."),
    ]


def test_turns_that_are_no_examples(tmp_path: Path) -> None:
    """A greeting before anybody spoke, a turn with weight 0, an empty one, a conversation without an assistant."""
    greeting = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hello"}]
    silent = [{"role": "assistant", "content": "no", "weight": 0}, {"role": "assistant", "content": ""}]
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [
            {"messages": [*greeting, *silent, {"role": "assistant", "content": "yes"}]},
            {"messages": [{"role": "user", "content": "Anybody?"}]},
        ],
    )

    data = read(path)

    assert examples(path) == [("assistant: Hi\nuser: Hello\nassistant: no", "yes")]
    assert [reason for _, reason in data.findings.skips] == [
        "an assistant's turn has neither text nor call",
        "no assistant's turn with something before it",
    ]


def test_a_conversation_is_never_divided(tmp_path: Path) -> None:
    """All of its steps are trained on, or all are held out: one step holds the others' answers."""
    chats = [
        [{"role": role, "content": f"{n} {step} {role}"} for step in range(4) for role in ("user", "assistant")]
        for n in range(60)
    ]
    data = read(write_jsonl(tmp_path / "a.jsonl", [{"messages": chat} for chat in chats]))

    def conversations(side: list[Any]) -> set[str]:
        return {example.target.split()[0] for example in side}

    assert data.n_examples == 240
    assert not conversations(data.train) & conversations(data.held_out)
    assert 1 <= len(conversations(data.held_out)) <= 15
    assert data.n_units == 60


def test_a_long_conversation_keeps_its_end(tmp_path: Path) -> None:
    """Of a thousand turns each example has the last ones: memory must not grow by the square."""
    chat = [{"role": role, "content": f"{n} {role} {'x' * 200}"} for n in range(1000) for role in ("user", "assistant")]
    data = read(write_jsonl(tmp_path / "a.jsonl", [{"messages": chat}]))

    lengths = [len(example.source) for example in data.train]
    last = next(example for example in data.train if example.target.startswith("999 "))
    assert max(lengths) <= MAX_CONVERSATION_CHARS
    assert sum(lengths) > 0.9 * 800 * MAX_CONVERSATION_CHARS
    assert last.source.splitlines()[-1].startswith("user: 999 user")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(arguments=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_a_call_has_one_spelling(arguments: dict[str, Any]) -> None:
    """Object or string, whatever the order of keys and the white space: one line, that gives the arguments back."""
    shuffled = dict(reversed(arguments.items()))
    spelt = spell_call("f", arguments)

    assert spelt == spell_call("f", json.dumps(shuffled, indent=3)) == spell_call("f", shuffled)
    assert json.loads(spelt.removeprefix("call: f ")) == arguments
    assert "\n" not in spelt


def test_what_is_no_json_is_called_as_it_was_written() -> None:
    """On one line; a call without a name is none."""
    assert spell_call("f", 'city: "Oslo",\n  unit') == 'call: f city: "Oslo", unit'
    assert spell_call("f", "") == spell_call("f", None) == "call: f {}"
    assert calls_of({"tool_calls": [{"function": {"arguments": "{}"}}, None, 3]}) == []
