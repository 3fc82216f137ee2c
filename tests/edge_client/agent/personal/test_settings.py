"""What a board may ask for itself, and which weights it then trains for whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.agent.settings import read_config
from edge_client.errors import ConfigError
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import Personal


def test_a_board_asks_for_local_strands_in_its_file(tmp_path: Path) -> None:
    """A table of edge-client.toml, with the keys of run.toml."""
    path = tmp_path / "edge-client.toml"
    path.write_text('server = "http://host:1"\n[personal]\nrank = 2\ntargets = ["q", "v"]\nwhen = "after"\n')

    assert read_config(path)["personal"] == Personal(rank=2, targets=("q", "v"), when="after")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("rank = -1", "rank"),
        ("rank = 300", "rank"),
        ('rank = "2"', "rank"),
        ("ranks = 2", "ranks"),
        ('rank = 2\ntargets = ["x"]', "targets"),
        ('rank = 2\nmethod = "lora"', "method"),
        ("rank = 2\nlearning_rate = nan", "learning_rate"),
        ("rank = 2\nmix = 1.5", "mix"),
        ('rank = 2\nmethod = "fedrep"', "local_blocks"),
        ("learning_rate = 0.1", "rank"),
    ],
)
def test_what_a_board_cannot_ask_for_is_named(tmp_path: Path, table: str, told: str) -> None:
    """File, table and key, and what there is."""
    path = tmp_path / "edge-client.toml"
    path.write_text(f"[personal]\n{table}\n")

    with pytest.raises(ConfigError, match=rf"edge-client\.toml: \[personal\]: .*{told}") as caught:
        read_config(path)
    assert "its settings are rank, method" in caught.value.hint


def test_fedrep_keeps_the_last_blocks_on_the_board() -> None:
    """Local strands are on the last blocks alone, and global ones on all the others; other methods share all."""
    run = run_of(SMALL_T5, {"scope": "all"})
    split = Personal(rank=3, method="fedrep", local_blocks=2)

    unshared = split.unshared(run.weights)

    assert unshared == {w.name for w in run.weights if w.decoder_block in (_last(run.weights), _last(run.weights) - 1)}
    ranks = dict(zip((weight.name for weight in run.weights), split.ranks(run.weights), strict=True))
    assert {name for name, rank in ranks.items() if rank} == unshared
    assert not Personal(rank=3).unshared(run.weights)
    assert all(Personal(rank=3).ranks(run.weights))
    everything = Personal(rank=3, method="fedrep", local_blocks=99).unshared(run.weights)
    assert everything == {weight.name for weight in run.weights if not weight.is_encoder}


def _last(weights: object) -> int:
    assert isinstance(weights, tuple)
    return max(weight.decoder_block for weight in weights)
