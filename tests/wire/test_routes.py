"""The calls of the protocol: frozen addresses, and queries that come out as they went in or are refused."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import routes
from wire.errors import WireError
from wire.limits import MAX_RANK, MAX_ROUNDS, MAX_WEIGHTS
from wire.routes import MAX_QUERY_CHARS, AdapterQuery, Call, Held, WorkQuery

RANKS = st.lists(st.integers(0, MAX_RANK), min_size=1, max_size=432).map(tuple)
HELD = st.builds(Held, version=st.integers(0, MAX_ROUNDS), ranks=RANKS)
QUERIES = st.builds(AdapterQuery, ranks=RANKS, held=st.none() | HELD)


def test_addresses_of_version_1_are_frozen() -> None:
    """Method and path of every call, and the headers of uploads: no change of code may change one."""
    assert {name: (call.method, call.path) for name, call in vars(routes).items() if isinstance(call, Call)} == {
        "ENROL": ("POST", "/v1/devices"),
        "PROOF": ("POST", "/v1/proofs"),
        "LEAVE": ("DELETE", "/v1/device"),
        "RENEW": ("PUT", "/v1/credential"),
        "RUN": ("GET", "/v1/run"),
        "HISTORY": ("GET", "/v1/versions"),
        "WORK": ("GET", "/v1/work"),
        "ADAPTER": ("GET", "/v1/adapters/{version}"),
        "UPLOAD_STATE": ("HEAD", "/v1/uploads/{round}"),
        "UPLOAD": ("PATCH", "/v1/uploads/{round}"),
        "RECEIPT": ("GET", "/v1/uploads/{round}"),
        "REPORT": ("POST", "/v1/reports"),
        "BASE": ("GET", "/v1/base"),
        "BASE_FILE": ("GET", "/v1/base/{file}"),
        "HEALTHZ": ("GET", "/healthz"),
        "READYZ": ("GET", "/readyz"),
        "STATUS": ("GET", "/v1/status"),
        "METRICS": ("GET", "/metrics"),
        "INDEX": ("GET", "/"),
    }
    headers = (routes.UPLOAD_DIGEST, routes.UPLOAD_LENGTH, routes.UPLOAD_OFFSET, routes.UPLOAD_COMPLETE)
    assert headers == ("Upload-Digest", "Upload-Length", "Upload-Offset", "Upload-Complete")


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        (AdapterQuery((4, 0, 8)), {"ranks": "4.0.8"}),
        (AdapterQuery((4, 0), Held(3, (4, 0))), {"ranks": "4.0", "have": "3"}),
        (AdapterQuery((4, 0), Held(0, (2, 256))), {"ranks": "4.0", "have": "0", "had": "2.256"}),
        (AdapterQuery((4,), Held(3, (4,), "0" * 16)), {"ranks": "4", "have": "3", "of": "0" * 16}),
        (WorkQuery(60.0, 7), {"wait": "60", "after": "7"}),
        (WorkQuery(60.0, 7, "ab"), {"wait": "60", "after": "7", "epoch": "ab"}),
        (WorkQuery(0.25, -1), {"wait": "0.25", "after": "-1"}),
    ],
)
def test_queries_of_version_1_are_frozen(query: AdapterQuery | WorkQuery, parts: dict[str, str]) -> None:
    """What a board writes into an address, and what the server reads there, letter for letter."""
    assert query.encode() == parts
    assert type(query).decode(parts) == query


def test_a_path_with_its_part() -> None:
    """The template's one name is replaced, and a path without one stays as it is."""
    assert routes.ADAPTER.at(12) == "/v1/adapters/12"
    assert routes.BASE_FILE.at("config.json") == "/v1/base/config.json"
    assert routes.BASE_FILE.at(r"\1.json") == r"/v1/base/\1.json"
    assert routes.RUN.at("") == "/v1/run"


@given(QUERIES)
def test_an_adapter_query_comes_out_as_it_went_in(query: AdapterQuery) -> None:
    """All of it; but a query too long for an address loses the adapter that is held, and nothing else."""
    parts = query.encode()

    read = AdapterQuery.decode(parts)

    assert read.ranks == query.ranks
    if read.held is None and query.held is not None:
        whole = ".".join(map(str, query.ranks + query.held.ranks))
        assert len(whole) + len(str(query.held.version)) > MAX_QUERY_CHARS
    else:
        assert read == query


def test_a_long_query_asks_for_the_whole_adapter() -> None:
    """Ranks of two adapters of the most weights would not fit an address; those of one are sent all the same."""
    ranks, others = (16,) * MAX_WEIGHTS, (15,) * MAX_WEIGHTS

    assert AdapterQuery(ranks, Held(3, others)).encode() == AdapterQuery(ranks).encode()
    assert AdapterQuery.decode(AdapterQuery(ranks).encode()) == AdapterQuery(ranks)


@given(st.integers(0, 60_000).map(lambda ms: ms / 1000), st.integers(-1, MAX_ROUNDS))
def test_a_work_query_comes_out_as_it_went_in(wait_s: float, after: int) -> None:
    """Seconds to a millisecond, and every round there can be."""
    assert WorkQuery.decode(WorkQuery(wait_s, after).encode()) == WorkQuery(wait_s, after)


def test_a_work_query_may_be_empty() -> None:
    """A board that asks for the first time need not say anything."""
    assert WorkQuery.decode({}) == WorkQuery(wait_s=0.0, after=-1)
    assert WorkQuery.decode({"wait": "", "after": ""}) == WorkQuery(wait_s=0.0, after=-1)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({}, "ranks"),
        ({"ranks": ""}, "ranks"),
        ({"ranks": "4,0"}, "ranks"),
        ({"ranks": "4."}, "ranks"),
        ({"ranks": "-4"}, "ranks"),
        ({"ranks": "٤"}, "ranks"),
        ({"ranks": "4\n"}, "ranks"),
        ({"ranks": "1000"}, "ranks"),
        ({"ranks": "1." * 5 * MAX_WEIGHTS + "1"}, "ranks"),
        ({"ranks": "4", "have": ""}, "have"),
        ({"ranks": "4", "have": "-1"}, "have"),
        ({"ranks": "4", "have": "1234567890"}, "have"),
        ({"ranks": "4", "have": "1", "had": ""}, "had"),
        ({"ranks": "4", "have": "1", "of": "x"}, "of"),
        ({"ranks": "4", "have": "1", "had": "1..2"}, "had"),
    ],
)
def test_nonsense_of_an_adapter_query_is_refused(parts: dict[str, str], named: str) -> None:
    """The error names the part."""
    with pytest.raises(WireError, match=named):
        AdapterQuery.decode(parts)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"wait": "soon"}, "wait"),
        ({"wait": "nan"}, "wait"),
        ({"wait": "inf"}, "wait"),
        ({"wait": "-1"}, "wait"),
        ({"after": "-2"}, "after"),
        ({"epoch": "x" * 33}, "epoch"),
        ({"after": "1.5"}, "after"),
        ({"after": "٤"}, "after"),
    ],
)
def test_nonsense_of_a_work_query_is_refused(parts: dict[str, str], named: str) -> None:
    """The error names the part."""
    with pytest.raises(WireError, match=named):
        WorkQuery.decode(parts)


TEXTS = st.text(st.sampled_from(string.digits + ".-+e \n٤a"), max_size=30) | st.text(max_size=30)


@given(st.dictionaries(st.sampled_from(["ranks", "have", "had", "wait", "after"]), TEXTS))
def test_any_text_is_a_query_or_a_wire_error(parts: dict[str, Any]) -> None:
    """No other exception comes out, and what is taken is within the bounds that later code relies on."""
    for kind in (AdapterQuery, WorkQuery):
        try:
            query = kind.decode(parts)
        except WireError as error:
            assert len(str(error)) < 200
        else:
            assert kind.decode(query.encode()) == query or isinstance(query, WorkQuery)
            if isinstance(query, WorkQuery):
                assert query.wait_s >= 0 and query.after >= -1
