"""The two answers to a download are told apart by their first bytes."""

from __future__ import annotations

from wire.adapter_patch import START_BYTES, is_patch
from wire.codec import encode
from wire.messages import Adapter, AdapterPatch

MANIFEST = "0" * 64


def test_the_first_bytes_say_which_it_is() -> None:
    """Whatever the numbers in it are, and of what is cut short or empty nobody says that it is a difference."""
    for version in (0, 200, 100_000):
        difference = encode(
            AdapterPatch(since=version, protocol=1, run_id="r", version=version, manifest=MANIFEST, parts=())
        )
        whole = encode(Adapter(protocol=1, run_id="since", version=version, manifest=MANIFEST, parts=()))

        assert is_patch(difference) and is_patch(difference[:START_BYTES])
        assert not is_patch(whole) and not is_patch(whole[:START_BYTES])
        assert not any(is_patch(difference[:length]) for length in range(START_BYTES))
