"""Settings of every test, made before numpy is loaded, and what several folders of tests start from."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.fakes.clock import FakeClock
from tests.fakes.models.bases import write_base
from tests.fakes.runs import TINY_T5

if TYPE_CHECKING:
    from aggregator.store.folder import Folder

# The matrices here are small. OpenBLAS's threads spin while they wait for each other, which on a busy machine of two
# cores made one test take 42 s instead of 0.5 s.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No test asks the real hub. Those of a hub serve one on loopback, and say so to the library or to their processes.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Test files run side by side, one for each processor: torch's threads would wait for each other as well.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# How long an example takes says nothing here: machines are shared. Sixty examples of every property, where a test does
# not say how many, keep the whole suite within its eight minutes on two cores.
settings.register_profile("untimed", deadline=None, max_examples=60)
settings.register_profile("fast", deadline=None, max_examples=15)  # `make test-fast`
settings.load_profile("untimed")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that are slow as a whole are not even imported by `make test-fast`: torch and transformers take seconds."""
    if config.getoption("markexpr") != "not slow" or not collection_path.match("test_*.py"):
        return None
    return True if "\npytestmark = pytest.mark.slow" in collection_path.read_text(encoding="utf-8") else None


LONG_FILES = ("tests/system/e2e/*.py", "tests/docs/test_code_blocks.py")
"""Few tests of half a minute and more each: whole runs of real processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long or many slow tests come first: at the end there are short ones to share out, and no processor
    idles."""
    n_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    is_long = {path: n > 0 and any(path.match(pattern) for pattern in LONG_FILES) for path, n in n_slow.items()}
    items.sort(key=lambda item: (not is_long.get(item.path, False), -n_slow[item.path]))


def pytest_collection_finish() -> None:
    """What libraries and test modules brought stays to the end. A full collection looked through all of it each time,
    up to 0.3 s where torch is loaded: a session of the engine collects whenever it lets a base go."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server_base(tmp_path: Path) -> Path:
    """A base model as a server sees one: whole, its weights without a meaning."""
    folder = tmp_path / "base"
    write_base(folder, TINY_T5)
    (folder / "secret.txt").write_text("not for boards")
    return folder


@pytest.fixture
def make_folder(tmp_path: Path, server_base: Path) -> Callable[..., Folder]:
    """Make a server's folder; settings are run.toml's keys."""
    from aggregator.run.setup import create
    from aggregator.store.folder import Folder

    def make(settings: Mapping[str, Any] | None = None, name: str = "server") -> Folder:
        small = {
            "run.rounds": 2,
            "rounds.min_devices": 2,
            "rounds.quorum": 2,
            "merge.rule": "braid",  # what fake boards send is short: B, and sketches
            "merge.max_rank": 4,
            "merge.server_rank": 8,
            "merge.sketch_every": 1,
            "train.targets": ["q", "wo"],
            "train.max_source_tokens": 192,  # given: what is chosen by boards has its own tests
            "train.max_target_tokens": 32,
            "train.upload": "fp32",
            "train.learning_rate": 1.0,  # fake boards go far in a round
        }
        root = tmp_path / name
        create(root, str(server_base), {**small, **(settings or {})}, force=False)
        return Folder(root)

    return make
