"""Tool calls in texts: equal where they are the same call, wrong where they are not, and never a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.data.tokeniser import Tokeniser
from edge_client.evaluation.tool_calls import MAX_DEPTH, Verdict, judge_calls, parse_calls

SHARED = Path(__file__).resolve().parents[4] / "shared"
"""Real data and T5's tokenizer, where they lie beside the checkout."""

RIGHT = Verdict(name=True, arguments=True)
OTHER_ARGUMENTS = Verdict(name=True, arguments=False)
WRONG = Verdict(name=False, arguments=False)

CALL = 'call: book {"room": 3, "who": {"name": "Ann", "days": [1, 2]}, "paid": true}'


def judge(target: str, written: str) -> Verdict | None:
    """With a tokenizer that can write everything."""
    return judge_calls([target], [target], written)


@pytest.mark.parametrize(
    ("written", "verdict"),
    [
        (CALL, RIGHT),
        ('call: book {"paid":true,"who":{"days":[1,2],"name":"Ann"},"room":3}', RIGHT),  # order and spaces
        ('  call:  book   {"room": 3.0, "who": {"name": "Ann", "days": [1, 2e0]}, "paid": true}\n', RIGHT),
        ('call: book {"room": "3", "who": {"name": "Ann", "days": [1, 2]}, "paid": true}', OTHER_ARGUMENTS),
        ('call: book {"room": 3, "who": {"name": "Ann", "days": [2, 1]}, "paid": true}', OTHER_ARGUMENTS),
        ('call: book {"room": 3, "who": {"name": "ann", "days": [1, 2]}, "paid": true}', OTHER_ARGUMENTS),
        ('call: book {"room": 3, "who": {"name": "Ann", "days": [1, 2]}, "paid": 1}', OTHER_ARGUMENTS),
        ('call: book {"room": 3, "who": {"name": "Ann", "days": [1, 2]}}', OTHER_ARGUMENTS),
        (CALL + " and thanks", OTHER_ARGUMENTS),
        (CALL + " " + CALL, WRONG),  # called twice
        (CALL[:-3], OTHER_ARGUMENTS),  # cut in the middle of its JSON
        ("call: book", OTHER_ARGUMENTS),
        ("call: book NaN", OTHER_ARGUMENTS),
        (CALL.replace("book", "cancel"), WRONG),
        ("call:", WRONG),
        ("", WRONG),
        ("say: I have booked it.", WRONG),
        ("I call: book {}", WRONG),
    ],
)
def test_a_text_beside_the_right_call(written: str, verdict: Verdict) -> None:
    """Right tool, right arguments, each judged by what the text means as a call."""
    assert judge(CALL, written) == verdict


@pytest.mark.parametrize("nothing", ["null", "[]", '""', "0", "false", "{}"])
def test_values_of_unequal_kinds_differ(nothing: str) -> None:
    """None of JSON's empty values is another one."""
    for other in ("null", "[]", '""', "0", "false", "{}"):
        expected = RIGHT if other == nothing else OTHER_ARGUMENTS
        assert judge(f'call: f {{"x": {nothing}}}', f'call: f {{"x": {other}}}') == expected


def test_several_calls_are_compared_in_order() -> None:
    two = 'call: look {"q": "a"}\ncall: take {"id": 1}'

    assert judge(two, 'call: look {"q": "a"} call: take {"id": 1}') == RIGHT
    assert judge(two, 'call: look {"q": "a"} call: take {"id": 2}') == OTHER_ARGUMENTS
    assert judge(two, 'call: take {"id": 1} call: look {"q": "a"}') == WRONG
    assert judge(two, 'call: look {"q": "a"}') == WRONG


def test_words_before_a_call_are_passed_over_where_the_right_answer_has_some() -> None:
    """A turn that speaks and calls, as chat APIs have them: the call alone is judged."""
    turn = f"I will see.\n{CALL}"

    assert judge(turn, turn) == RIGHT
    assert judge(turn, f"One moment please. {CALL}") == RIGHT
    assert judge(turn, CALL) == RIGHT
    assert judge(turn, CALL.replace("3", "4")) == OTHER_ARGUMENTS
    assert judge(turn, "I will see.") == WRONG
    assert judge(CALL, turn) == WRONG


def test_what_is_no_call_is_not_judged() -> None:
    """A reply that mentions a call is a reply."""
    assert judge("say: hello", CALL) is None
    assert judge("please call: me", CALL) is None


def test_a_right_answer_whose_arguments_are_no_json() -> None:
    """Real data has such: then their text counts, up to white space."""
    target = 'call: add {"id": ""latte"","n": "1"}'

    assert judge(target, target.replace(",", ",  ")) == OTHER_ARGUMENTS
    assert judge(target, target.replace(" ", "  ")) == RIGHT
    assert judge(target, 'call: add {"id": "latte", "n": "1"}') == OTHER_ARGUMENTS


def test_the_best_of_several_right_answers_counts() -> None:
    targets = ['call: a {"x": 1}', 'call: b {"x": 2}', "say: or just this"]

    assert judge_calls(targets, targets, 'call: b {"x": 2}') == RIGHT
    assert judge_calls(targets, targets, 'call: b {"x": 1}') == OTHER_ARGUMENTS
    assert judge_calls(targets, targets, "say: or just this") == WRONG
    assert judge_calls(targets[::-1], targets[::-1], 'call: a {"x": 1}') is None


def without_brackets(text: str) -> str:
    """The text as T5's tokenizer writes it."""
    return text.replace("{", "").replace("}", "").strip()


@pytest.mark.parametrize(
    ("target", "written", "verdict"),
    [
        ('call: f {"a": 1, "b": "x"}', 'call: f "a": 1, "b": "x"', RIGHT),
        ('call: f {"a": 1, "b": "x"}', 'call: f "b": "x", "a": 1.0', RIGHT),
        ('call: f {"a": 1, "b": "x"}', 'call: f "a": 1, "b": "y"', OTHER_ARGUMENTS),
        ('call: f {"a": {"b": 1}}', 'call: f "a":  "b": 1', RIGHT),  # nested: as text
        ('call: f {"a": {"b": 1}}', 'call: f "a": "b": 2', OTHER_ARGUMENTS),
        ("call: f {}", "call: f", RIGHT),
        ("call: f {}", "call: g", WRONG),
        ('call: f {"a": 1}\ncall: g {"b": 2}', 'call: f "a": 1 call: g "b": 2.0', RIGHT),
        ('I see.\ncall: f {"a": 1}', 'Well. call: f "a": 1', RIGHT),
        ('I see.\ncall: f {"a": 1}', 'I see. call: f "a": 2', OTHER_ARGUMENTS),
    ],
)
def test_a_tokenizer_without_curly_brackets(target: str, written: str, verdict: Verdict) -> None:
    """T5's own: no model that uses it can write an object. What it can write of the right call is right."""
    assert judge_calls([target], [without_brackets(target)], written) == verdict


@pytest.mark.skipif(not (SHARED / "tokenizer").is_dir(), reason="../shared is not here: no T5 tokenizer, no real calls")
def test_what_t5_can_write_of_real_calls_is_right() -> None:
    """Every call of a published test set, as T5's own tokenizer writes it; and none of them as the call before it."""
    tokeniser = Tokeniser(SHARED / "tokenizer", eos_id=1, vocabulary=32_128)
    lines = (SHARED / "data" / "coffee.test.jsonl").read_text(encoding="utf-8").splitlines()
    calls = sorted({target for line in lines if (target := json.loads(line)["target"]).startswith("call: ")})
    writable = [tokeniser.writable(call) for call in calls]

    assert len(calls) > 300
    for call, text, before in zip(calls[1:], writable[1:], writable, strict=False):
        assert "{" not in text
        assert judge_calls([call], [text], text) == RIGHT
        assert text == before or judge_calls([call], [text], before) != RIGHT


def test_brackets_that_a_model_could_have_written_must_be_there() -> None:
    assert judge('call: f {"a": 1}', 'call: f "a": 1') == OTHER_ARGUMENTS


@pytest.mark.parametrize("depth", [MAX_DEPTH, 3000, 200_000])
def test_deep_nesting_is_compared_all_the_same(depth: int) -> None:
    """As values or as text; the stack is not exhausted."""
    deep = "[" * depth + "]" * depth
    target = f'call: f {{"x": {deep}}}'

    assert judge(target, target) == RIGHT
    assert judge(target, "call: f " + "[" * depth) == OTHER_ARGUMENTS


def test_long_numbers_are_compared() -> None:
    """More digits than Python turns into a number: as text."""
    target = 'call: f {"x": ' + "9" * 5000 + "}"

    assert judge(target, target) == RIGHT
    assert judge(target, target.replace("9}", "8}")) == OTHER_ARGUMENTS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_every_spelling_of_a_value_is_that_value(arguments: dict[str, object]) -> None:
    """Escapes, spaces and the order of keys are spelling."""
    target = f"call: f {json.dumps(arguments)}"
    backwards = {key: arguments[key] for key in reversed(list(arguments))}

    assert judge(target, f"call: f {json.dumps(backwards, ensure_ascii=False, indent=1)}") == RIGHT


@given(st.text() | st.text(alphabet=' cal:{}[]"f1,').map(lambda text: f"call: {text}"))
def test_no_text_is_too_strange(text: str) -> None:
    """Anything can be written, and is judged: right only where it equals itself."""
    judge(CALL, text)
    verdict = judge(text, text)
    assert verdict is None or verdict == RIGHT
    lossy = judge_calls([text], [without_brackets(text)], text)
    assert (lossy is None) == (verdict is None)
    assert isinstance(parse_calls(text, lacks_brackets=True), tuple)
