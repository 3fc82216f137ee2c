"""Requests that are changed by their form: another call, other headers, another value in a message, one more."""

from __future__ import annotations

import random

from fuzz.door.template import BOARD, NEXT, OPERATOR
from fuzz.mutations import mutate_bytes, mutate_msgpack
from wire import routes
from wire.codec import CONTENT_TYPE
from wire.routes import Call

CALLS = tuple(call for call in vars(routes).values() if isinstance(call, Call))
"""Every call of the protocol."""

VALUES = (
    *(
        "",
        " ",
        "\xe9",
        "\xff\xfe",
        "\x7f",
        "%00",
        "%ff",
        "None",
        "-1",
        "0",
        "1e9",
        "9" * 400,
        "x" * 8000,
        '"',
        "*",
        ",",
    ),
    *("Basic", "Basic ", "Basic \xe9", "Basic " + "A" * 900, "Basic Ojo6", "Bearer", "Bearer \xff", "Bearer a b"),
    *(CONTENT_TYPE.replace("v=1", "v=\xff"), CONTENT_TYPE + "; v=2", "application/vnd.braid+msgpack;v", "a/b;c;d=;=e"),
    *("bytes=0-", "bytes=-1", "bytes=9-1", "bytes=1-2,3-4", "bytes=\xe9-", 'W/"x"', '"' * 99, "identity;q=0"),
    *("gzip", "chunked", "chunked, chunked", "100-continue", "websocket", "upgrade", "close", "keep-alive, upgrade"),
)
"""Values of headers, sensible ones and others."""

NAMES = (
    *("Authorization", "Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type"),
    *("Cookie", "Expect", "Host", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "Range", "TE"),
    *("Upgrade", "Sec-WebSocket-Key", "Transfer-Encoding", "Upload-Digest", "Upload-Length", "Upload-Offset"),
    "X-Forwarded-For",
)
"""Headers that something on the way reads."""

QUERIES = (
    *("wait=0", "wait=-1", "wait=nan", "wait=1e400", "after=0", "after=9" * 9, "after=-1", "epoch=" + "x" * 33),
    *("ranks=1.1.1.1", "ranks=0.0.0.0", "ranks=2.2.2.2&have=0&had=1.1.1.1", "ranks=1&have=1&of=zz", "part=1", "%ff"),
)
"""Queries of all calls, sensible ones and others."""

PARTS = ("0", "1", "2", "99999", "-1", "100001", "config.json", "model.safetensors", "..%2frun.toml", "%00", "\xff", "")
"""Values for the part of a path that varies."""


def mutate_requests(data: bytes, rng: random.Random) -> bytes:
    """An input with one of its requests changed, left out, sent twice or joined by another."""
    requests = data.split(NEXT)
    place = rng.randrange(len(requests))
    match rng.randrange(10):
        case 0:
            requests.insert(place, requests[place])
        case 1 if len(requests) > 1:
            requests.pop(place)
        case _:
            requests[place] = _changed(requests[place], rng)
    return NEXT.join(requests[:4])


def _changed(request: bytes, rng: random.Random) -> bytes:
    head, end, body = request.partition(b"\r\n\r\n")
    match rng.randrange(12):
        case 0:
            return mutate_bytes(request, rng, [request])
        case 1:
            return mutate_bytes(head, rng, [head]) + end + body
        case 2 | 3:
            return _with_call(head, rng) + end + body
        case 4 | 5:
            return b"\r\n".join(with_headers(head.split(b"\r\n"), rng)) + end + body
        case 6:
            return _with_credential(head, rng) + end + body
        case _ if body:
            return head + end + mutate_msgpack(body, rng)
        case _:
            return _with_call(head, rng) + end + body


def _with_call(head: bytes, rng: random.Random) -> bytes:
    """The head with another call's first line."""
    call = rng.choice(CALLS)
    query = "?" + "&".join(rng.sample(QUERIES, rng.randint(1, 2))) if rng.random() < 0.5 else ""
    line = f"{call.method} {call.at(rng.choice(PARTS))}{query} HTTP/1.1".encode("latin-1")
    return b"\r\n".join([line, *head.split(b"\r\n")[1:]])


def _with_credential(head: bytes, rng: random.Random) -> bytes:
    """The head as somebody else would send it: a board, the operator, or nobody."""
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"authorization:")]
    who = rng.choice((BOARD, OPERATOR, "", "nobody"))
    return b"\r\n".join([*lines, f"Authorization: Bearer {who}".encode()] if who else lines)


def with_headers(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """A request's first line and headers, with one to three headers put in, replaced, doubled, left out or damaged."""
    line, *headers = lines
    for _ in range(rng.randint(1, 3)):
        header = f"{rng.choice(NAMES)}: {rng.choice(VALUES)}".encode("latin-1")
        where = rng.randrange(len(headers) + 1)
        match rng.randrange(5):
            case 0:
                headers.insert(where, header)
            case 1:
                name = header.partition(b":")[0]
                headers = [header if each.startswith(name) else each for each in headers]
            case 2 if headers:
                headers.append(rng.choice(headers))
            case 3 if headers:
                headers.pop(where % len(headers))
            case _ if headers and headers[where % len(headers)]:
                damaged = bytearray(headers[where % len(headers)])
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                headers[where % len(headers)] = bytes(damaged)
    return [line, *headers]
