"""Join tokens by their rules, on a clock that stands still: few uses, a short time, and a sentence for each refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.store.credentials import RENEW_AFTER_S, is_due
from aggregator.store.join_tokens import DEFAULT_LIFE_S, Token, TokenRefusedError, require_valid, token_state

NOW = 1_800_000_000.0


def token(**changes: object) -> Token:
    fields = {"id": 1, "hash": "h", "label": "", "uses": 2, "created_at": NOW, "revoked": False}
    return Token(**{**fields, "expires_at": NOW + DEFAULT_LIFE_S, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "later_s", "state"),
    [
        ({}, 0, "valid"),
        ({"devices": ("a",)}, DEFAULT_LIFE_S - 1, "valid"),
        ({"devices": ("a", "b")}, 0, "used up"),
        ({}, DEFAULT_LIFE_S, "expired"),
        ({"devices": ("a", "b")}, DEFAULT_LIFE_S, "expired"),
        ({"revoked": True}, DEFAULT_LIFE_S, "revoked"),
    ],
)
def test_the_state_of_a_token(changes: dict[str, object], later_s: float, state: str) -> None:
    """It ends by its uses, by its time, or by hand; the last second counts."""
    assert token_state(token(**changes), NOW + later_s) == state


def test_a_refusal_says_why_and_how_to_make_another() -> None:
    """The board's people read it, and the server's people know what to type."""
    cases = [
        ([], "not valid", "token create"),
        ([token(revoked=True)], "revoked", "token create"),
        ([token(expires_at=NOW - 3 * 86400)], "expired 3 d 0 h ago", "--expires"),
        ([token(devices=("a", "b"))], "for 2 boards and is used up", "--uses"),
        ([token(uses=1, devices=("a",))], "for 1 board and is used up", "--uses"),
    ]
    for known, why, remedy in cases:
        with pytest.raises(TokenRefusedError, match=why) as caught:
            require_valid(known, "", NOW)
        assert remedy in caught.value.hint


def test_a_device_may_repeat_its_enrolment_while_the_token_lasts() -> None:
    """Its answer may have been lost; another device may not, nor the same one later."""
    used_up = token(uses=1, devices=("ada",))

    assert require_valid([used_up], "ada", NOW) is used_up
    with pytest.raises(TokenRefusedError, match="used up"):
        require_valid([used_up], "bo", NOW)
    with pytest.raises(TokenRefusedError, match="expired"):
        require_valid([used_up], "ada", NOW + DEFAULT_LIFE_S)


def test_a_clock_that_was_put_back_ends_no_token_and_gives_no_negative_age() -> None:
    """A server that boots in 1970 lets in whom it let in before."""
    assert token_state(token(), 0.0) == "valid"
    with pytest.raises(TokenRefusedError, match="expired 0 s ago"):
        require_valid([token(expires_at=NOW)], "", NOW)


@given(age_s=st.floats(-1e10, 1e10))
def test_a_credential_is_due_after_its_time_or_when_it_is_of_the_future(age_s: float) -> None:
    """One renewal puts either right: the new one is of now."""
    assert is_due(NOW - age_s, NOW) == (not 0 <= NOW - (NOW - age_s) < RENEW_AFTER_S)
    assert not is_due(NOW, NOW)
