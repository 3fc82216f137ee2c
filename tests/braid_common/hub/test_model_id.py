"""Names on the hub: told from paths, and pinned or not."""

from __future__ import annotations

import pytest

from braid_common.hub.model_id import HubId, parse_hub_id

COMMIT = "0fc9ddf78a1e988dac52e2dac162b0ede4fd74ab"


@pytest.mark.parametrize(
    ("text", "model", "shown"),
    [
        ("google/flan-t5-small", HubId("google/flan-t5-small"), "google/flan-t5-small"),
        ("google/flan-t5-small@main", HubId("google/flan-t5-small", "main"), "google/flan-t5-small@main"),
        ("a/b@refs/pr/3", HubId("a/b", "refs/pr/3"), "a/b@refs/pr/3"),
        (f"a/b@{COMMIT}", HubId("a/b", COMMIT), "a/b@0fc9ddf78a1e"),
    ],
)
def test_names_are_read(text: str, model: HubId, shown: str) -> None:
    """ORG/NAME, with a revision behind @ or without."""
    assert parse_hub_id(text) == model
    assert model.shown == shown and model.is_pinned == (COMMIT in text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "./a",
        "../a/b",
        "/srv/flan",
        "~/flan",
        "a/b/c",
        "a/",
        "a b",
        "a/b@",
        "a/b@..",
        "a/..",
        "a/b@x y",
        "ä/b",
        "a\n",
    ],
)
def test_paths_are_no_names(text: str) -> None:
    """Nothing that could leave the cache's folder, or that only a path looks like."""
    assert parse_hub_id(text) is None
