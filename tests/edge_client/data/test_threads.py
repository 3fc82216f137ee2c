"""Messages in rows of their own, joined to the threads that they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.data import threads
from tests.fakes.data_files import read, write_jsonl

# A prompt with two answers, one of which is asked on; a second thread; parents stand behind their replies here.
MESSAGES = [
    {"message_id": "d", "parent_id": "b", "role": "prompter", "text": "Why?", "lang": "en"},
    {"message_id": "e", "parent_id": "d", "role": "assistant", "text": "Because.", "lang": "en"},
    {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Yes.", "lang": "en"},
    {"message_id": "c", "parent_id": "a", "role": "assistant", "text": "No.", "lang": "en"},
    {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Is it?", "lang": "en"},
    {"message_id": "f", "parent_id": None, "role": "prompter", "text": "Anybody?", "lang": "en"},
]
STEPS = {
    ("user: Is it?", "Yes."),
    ("user: Is it?", "No."),
    ("user: Is it?\nassistant: Yes.\nuser: Why?", "Because."),
}


def pairs(path: Path) -> set[tuple[str, str]]:
    data = read(path)
    return {(example.source, example.target) for example in data.train + data.held_out}


def test_rows_become_threads(tmp_path: Path) -> None:
    """Each reply of the assistant with the way to it; a thread nobody answered is counted; columns are the rows'."""
    path = write_jsonl(tmp_path / "messages.jsonl", MESSAGES)

    data = read(path)

    assert pairs(path) == STEPS
    assert data.n_units == 1
    assert data.first_skipped == f"{path}:6: no assistant's turn with something before it"
    assert data.findings.shapes == ("threads of messages",)
    assert data.findings.ignored_columns == ("lang",)


def test_the_same_threads_as_trees(tmp_path: Path) -> None:
    """As the data set has them besides: a prompt with replies in it."""

    def tree(key: str) -> dict[str, object]:
        message = next(one for one in MESSAGES if one["message_id"] == key)
        return {**message, "replies": [tree(str(one["message_id"])) for one in MESSAGES if one["parent_id"] == key]}

    path = write_jsonl(tmp_path / "trees.jsonl", [{"message_tree_id": "a", "prompt": tree("a")}])

    assert pairs(path) == STEPS


def test_support_on_twitter(tmp_path: Path) -> None:
    """Companies' tweets are the assistant's, whose ids a spreadsheet has made fractional."""
    path = tmp_path / "twcs.csv"
    path.write_text(
        "tweet_id,author_id,inbound,created_at,text,response_tweet_id,in_response_to_tweet_id\n"
        '2,shop,False,Tue,"@115 We are sorry, send us a message.",,1.0\n'
        "1,115,True,Tue,@shop my parcel is lost,2,\n"
        "3,116,True,Tue,@shop hello?,,\n"
    )

    assert pairs(path) == {("user: @shop my parcel is lost", "@115 We are sorry, send us a message.")}


def test_rows_beyond_the_limit_are_said_to_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All messages of a thread must be in memory, so there is a limit."""
    monkeypatch.setattr(threads, "MAX_MESSAGES", 5)
    path = write_jsonl(tmp_path / "messages.jsonl", MESSAGES)

    data = read(path)

    assert pairs(path) == STEPS
    assert data.first_skipped == f"{path}:6: more than 5 messages: the rows from here on are left out"
