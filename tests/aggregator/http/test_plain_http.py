"""Plain HTTP to another machine is warned of, once, by whoever is about to speak it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aggregator.http.server import Listening, _greet
from aggregator.http.tls import prepare
from aggregator.remote import Address, plain_warning
from aggregator.run.setup import open_run
from aggregator.store.folder import Folder
from tests.fakes.aggregator_command import call
from tests.fakes.clock import FakeClock

PLAIN = "http://192.0.2.1:8470"


@pytest.mark.parametrize(("url", "is_warned"), [(PLAIN, True), ("https://192.0.2.1", False), ("http://[::1]:1", False)])
def test_the_operators_token_is_not_sent_in_the_clear_without_a_word(url: str, is_warned: bool) -> None:
    assert bool(plain_warning(Address(url, "token"))) == is_warned


def test_the_warning_does_not_stand_in_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--json` stays JSON: it goes to stderr, where both come together here."""
    monkeypatch.setattr("aggregator.remote.fetch_status", lambda address: {"rounds": [], "evaluations": []})

    code, text = call("rounds", PLAIN, "--token", "x", "--json")

    assert code == 0 and text.startswith("{") and text.rstrip().endswith("Use https://.")
    assert "WARNING" not in call("rounds", "https://192.0.2.1", "--token", "x")[1]


@pytest.mark.parametrize(
    ("host", "tls", "public_url", "is_warned"),
    [
        ("127.0.0.1", "off", "", False),
        ("0.0.0.0", "off", "", True),
        ("0.0.0.0", None, "", False),
        ("127.0.0.1", "off", "http://aggregator.example/braid", True),
        ("127.0.0.1", "off", "https://aggregator.example/braid", False),
        ("127.0.0.1", "off", "http://localhost:80", False),
    ],
)
def test_a_server_that_boards_reach_without_tls_says_so(
    make_folder: Any, clock: FakeClock, tmp_path: Path, host: str, tls: str | None, public_url: str, is_warned: bool
) -> None:
    """Also where a proxy does not speak it either."""
    opened, lines = open_run(make_folder(), clock), []
    try:
        listening = Listening(host, 8470, prepare(tls, host, Folder(tmp_path)), public_url)
        _greet(opened, replace(listening), lines.append)
    finally:
        opened.store.close()

    assert sum("WARNING: without TLS" in line for line in lines) == is_warned
