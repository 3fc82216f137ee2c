"""Faults of a line: drawn by seed, every kind in turn, each where it can happen."""

from __future__ import annotations

from collections import Counter

from chaos.network.http import Request
from chaos.network.line_faults import ANY_MEETS, DOWNLOADS_MEET, LINE_FAULTS, UPLOADS_MEET, LineFault, LineFaults

UPLOAD = Request(b"PATCH /v1/uploads/3 HTTP/1.1\r\nContent-Length: 4\r\n\r\n", b"body")
DOWNLOAD = Request(b"GET /v1/adapters/3?ranks=1 HTTP/1.1\r\n\r\n")
POLL = Request(b"GET /v1/work?wait=60 HTTP/1.1\r\n\r\n")
ENROLMENT = Request(b"POST /v1/devices HTTP/1.1\r\nContent-Length: 4\r\n\r\n", b"body")


def dealt(faults: LineFaults, request: Request, n: int) -> list[LineFault | None]:
    return [faults.fault_of(request) for _ in range(n)]


def test_equal_seeds_deal_equal_faults() -> None:
    one, same, other = (dealt(LineFaults(seed, 0.5), POLL, 50) for seed in ("a", "a", "b"))

    assert one == same != other
    assert None in one


def test_every_kind_comes_in_turn() -> None:
    """None comes again before all have come."""
    for request, kinds in ((UPLOAD, UPLOADS_MEET), (POLL, ANY_MEETS)):
        found = dealt(LineFaults("a", 1.0), request, 2 * len(kinds))
        assert set(found[: len(kinds)]) == set(found[len(kinds) :]) == set(kinds)


def test_each_kind_is_met_where_it_can_happen() -> None:
    """All are met; bits are flipped where a digest goes with the bytes, and no enrolment comes twice at once."""
    faults = LineFaults("a", 1.0)
    counts = {request: Counter(dealt(faults, request, 200)) for request in (UPLOAD, DOWNLOAD, POLL, ENROLMENT)}

    assert set().union(*counts.values()) == {*LINE_FAULTS, None}
    assert counts[DOWNLOAD][DOWNLOADS_MEET[0]] > 50
    assert not counts[POLL].keys() & {*UPLOADS_MEET, *DOWNLOADS_MEET}
    assert counts[POLL]["duplicated at once"] and not counts[ENROLMENT]["duplicated at once"]


def test_uploads_meet_more() -> None:
    uploads, polls = (dealt(LineFaults("a", 0.1), request, 500) for request in (UPLOAD, POLL))

    assert uploads.count(None) < polls.count(None) < 500
