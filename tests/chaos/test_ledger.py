"""The ledger: what counts as a promise of the server, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from chaos.ledger import Acknowledged, Ledger
from chaos.network.http import Answer, Request
from wire.codec import encode
from wire.messages import Receipt, Refusal

DIGEST = "a" * 64
ENTRY = Acknowledged("ada", 3, DIGEST)


def request(method: str, path: str = "/v1/uploads/3") -> Request:
    return Request(f"{method} {path} HTTP/1.1\r\nUpload-Digest: {DIGEST}\r\n\r\n".encode(), b"bytes")


def answer(status: int, body: bytes = b"", header: str = "") -> Answer:
    return Answer(f"HTTP/1.1 {status} Reason\r\n{header}\r\n".encode(), body)


ACCEPTED, REFUSED = (encode(Receipt(accepted=accepted, reason="too large")) for accepted in (True, False))


@pytest.mark.parametrize(
    ("method", "said", "is_promise"),
    [
        ("PATCH", answer(202), True),
        ("PATCH", answer(200, ACCEPTED), True),
        ("GET", answer(200, ACCEPTED), True),
        ("HEAD", answer(200, header="Upload-Complete: 1\r\n"), True),
        ("HEAD", answer(200, header="Upload-Complete: 0\r\n"), False),
        ("GET", answer(202), False),
        ("PATCH", answer(409, encode(Refusal(code="conflict", message="no"))), False),
        ("PATCH", answer(200, REFUSED), False),
    ],
)
def test_promises(method: str, said: Answer, is_promise: bool) -> None:
    ledger = Ledger()

    ledger.note("ada", request(method), said)

    assert list(ledger.acknowledged) == [ENTRY] * is_promise
    assert ledger.refused.total() == (said.body == REFUSED)


def test_other_calls_promise_nothing() -> None:
    ledger = Ledger()
    ledger.note("ada", request("GET", "/v1/work"), answer(200, ACCEPTED))

    assert not ledger.acknowledged and ledger.statuses == {200: 1}


def test_a_promise_again_is_one_promise() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.note("ada", request("PATCH"), answer(202))

    assert list(ledger.acknowledged) == [ENTRY] and ledger.repeats == 2
    assert ledger.boards_of(3) == {"ada"} and not ledger.boards_of(2)


async def test_a_turn_is_waited_for() -> None:
    ledger = Ledger()
    waiting = asyncio.ensure_future(ledger.until_heard(3, "ada"))
    ledger.note("bo", request("PATCH"), answer(202))
    await asyncio.sleep(0)
    assert not waiting.done()

    ledger.note("ada", request("PATCH"), answer(202))

    await asyncio.wait_for(waiting, 5)
