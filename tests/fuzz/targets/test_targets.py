"""Targets with faults planted in what they try: each is found. And changes by form: they keep it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from edge_client.network import answers as answers_of_others
from fuzz.contract import BrokenError
from fuzz.places import CORPUS, corpus, corpus_folder
from fuzz.targets import SHARES, answers, base, data, load, messages, uploads
from wire.messages import Refusal

DRAWN = 120
"""Changed inputs of each target."""

GOOD = frozenset({"decoded", "accepted", "read", "taken", "200"})


def fail(*_: Any, **__: Any) -> Any:
    raise KeyError("a bug")


def test_every_name_leads_to_a_target() -> None:
    """The targets are those that a run goes through, each with inputs to begin with."""
    assert [load(name).name for name in SHARES] == list(SHARES)
    assert {corpus_folder(name) for name in SHARES} == set(CORPUS.iterdir())
    with pytest.raises(KeyError):
        load("nothing")


@pytest.mark.parametrize("name", ["messages", "uploads", "answers", "base", "requests"])
def test_changes_keep_the_form(name: str, tmp_path: Path) -> None:
    """Of inputs that were changed once some are still taken, and some are not; equal seeds change equally."""
    target, rng = load(name), random.Random(1)
    seeds = [path.read_bytes() for path in corpus(name)]
    drawn = [target.mutate(rng.choice(seeds), rng) for _ in range(DRAWN)]

    with target.open(tmp_path) as judge:
        share = sum(judge.check(one) in GOOD for one in drawn) / DRAWN

    assert 0.02 < share < 0.98
    assert target.mutate(seeds[0], random.Random(2)) == target.mutate(seeds[0], random.Random(2))


def test_a_message_that_another_reader_would_read_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decodes must encode to the same message again."""
    other = messages.encode(Refusal(code="busy", message="other words"))
    monkeypatch.setattr(messages, "encode", lambda _: other)

    with pytest.raises(BrokenError, match="the same message"):
        messages.check(first("messages", "Refusal"))


def test_an_error_that_a_reader_lets_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Anything but a refusal, in any target."""
    monkeypatch.setattr(messages, "unpack", fail)
    monkeypatch.setattr(uploads, "judge", fail)
    monkeypatch.setattr(answers, "make_whole", fail)
    monkeypatch.setattr(base, "check_base", fail)
    monkeypatch.setattr(data, "load_data", fail)
    inputs = {
        "messages": "Tensor-bf16",
        "uploads": "update-bf16",
        "answers": "patch",
        "base": "config.json",
        "data": "pairs",
    }

    for name, file in inputs.items():
        (tmp_path / name).mkdir()
        with load(name).open(tmp_path / name) as judge, pytest.raises(KeyError, match="a bug"):
            judge.check(first(name, file))


def test_words_of_others_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A redirect's address could clear the screen."""
    redirect = first("answers", "redirect")
    with answers.ANSWERS.open(tmp_path) as judge:
        assert judge.check(redirect) == "read"
        monkeypatch.setattr(answers_of_others, "printable", lambda text: text)

        with pytest.raises(BrokenError, match="cannot steer a terminal"):
            judge.check(redirect)


def first(target: str, name: str) -> bytes:
    """An input of the corpus."""
    return (CORPUS / target / f"{name}.input").read_bytes()
