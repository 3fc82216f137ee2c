"""The trivial model: updates that every check of the server believes, and that depend on what the board was sent."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from chaos.fleet.trivial_model import n_examples, profile, update
from tests.fakes.messages import RANKS, RUN, WEIGHTS
from wire.checks import check_profile, check_update
from wire.codec import encode
from wire.messages import Adapter, AdapterPart, RoundSpec, Tensor
from wire.tensors import pack, unpack


def filled(rows: int, columns: int, value: float = 0.5) -> Tensor:
    return pack(np.full((rows, columns), value, np.float32), "fp32")


def adapter(**changes: Any) -> Adapter:
    """One whose strands are all 0.5, but for `changes` of the first weight's."""
    parts = [
        AdapterPart(
            name=weight.name,
            frozen_b=filled(weight.rows, 2),
            frozen_a=filled(2, weight.columns),
            basis=filled(rank, weight.columns),
            start_b=filled(weight.rows, rank),
        )
        for weight, rank in zip(WEIGHTS, RANKS, strict=True)
    ]
    parts[0] = msgspec.structs.replace(parts[0], **changes)
    return Adapter(protocol=1, run_id="run-1", version=1, manifest=RUN.manifest, parts=tuple(parts))


@pytest.mark.parametrize("trains", ["a", "b", "both"])
@pytest.mark.parametrize("sketch", [True, False])
def test_updates_are_what_the_round_asks(trains: Any, sketch: bool) -> None:
    spec = RoundSpec(round=2, version=1, trains=trains, sketch=sketch)

    sent = update(RUN, spec, adapter(), RANKS, "ada")

    check_update(sent, RUN, spec, ranks=RANKS)


def test_profiles_are_what_the_run_asks() -> None:
    check_profile(profile(RUN, "ada"), RUN, importance=RUN.settings.importance)


def test_an_update_is_a_function_of_board_round_and_strands() -> None:
    """Equal ones give equal bytes; another board, round or bit of a strand gives others. Frozen factors count for
    nothing."""

    def sent(board: str = "ada", round_id: int = 2, **changes: Any) -> bytes:
        spec = RoundSpec(round=round_id, version=1, trains="both")
        return encode(update(RUN, spec, adapter(**changes), RANKS, board))

    basis = np.array(unpack(filled(RANKS[0], WEIGHTS[0].columns)))
    basis[0, 0] = np.nextafter(basis[0, 0], np.float32(1))
    assert sent() == sent() == sent(frozen_b=filled(WEIGHTS[0].rows, 2, 0.25))
    assert len({sent(), sent("bo"), sent(round_id=3), sent(basis=pack(basis, "fp32"))}) == 4


def test_boards_have_unequal_weights_that_none_exceeds_threefold() -> None:
    """So that sums depend on whose update is which, and no weight is capped."""
    weights = [n_examples(f"board{i}") for i in range(1, 9)]
    assert len(set(weights)) > 1 and max(weights) <= 3 * min(weights)
