"""Rewards in a board's settings file, and the board that has none where a run asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from edge_client.agent.settings import read_config
from edge_client.errors import ConfigError
from edge_client.jobs.reward_spec import LengthReward, ModelReward, require_rewards
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RewardLearning


def written(folder: Path, text: str) -> Path:
    path = folder / "edge-client.toml"
    path.write_text(text)
    return path


def test_tables_become_rewards(tmp_path: Path) -> None:
    """Beside the other settings; a model's path begins at the file's folder, wherever the client is started."""
    of_length, of_model = 'kind = "length"\nat_most = 40\n', 'kind = "model"\npath = "a.head"\nweight = -2\n'
    text = f'name = "zero"\n[[reward]]\n{of_length}[[reward]]\n{of_model}'
    settings = read_config(written(tmp_path, text))

    assert settings == {
        "name": "zero",
        "rewards": (LengthReward(at_most=40), ModelReward(path=str(tmp_path / "a.head"), weight=-2.0)),
    }


def test_a_file_without_rewards_is_as_before(tmp_path: Path) -> None:
    assert read_config(written(tmp_path, 'name = "zero"\n')) == {"name": "zero"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[reward]]\nkind = "overlap"\nwieght = 2\n', "[[reward]] is wrong: "),
        ('reward = "overlap"\n', "[[reward]] is wrong: "),
        ('[reward]\nkind = "overlap"\n', "[[reward]] is wrong: "),
        ("rewards = 3\n", "there is no setting 'rewards'"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as refused:
        read_config(path)

    assert refused.value.message.startswith(f"{path}: {says}")


@pytest.mark.parametrize("reward", [UNSET, RewardLearning()])
def test_a_board_without_rewards_cannot_join_a_run_of_them(reward: Any) -> None:
    """And may join any other."""
    run = run_of(SMALL_T5, {"reward": reward})

    require_rewards(run, (LengthReward(at_most=4),))
    if reward is UNSET:
        require_rewards(run, ())
    else:
        with pytest.raises(ConfigError, match="this board has none"):
            require_rewards(run, ())
