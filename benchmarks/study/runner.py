"""Runs of fleets, several at once, kept in a file after each so that an interruption loses one run per process."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.simulation.setting import History, Setting
from benchmarks.simulation.texts import boards, load_pools
from braid_common.atomic_file import write_atomically
from edge_client.host.worker_memory import prepare_for_training

if TYPE_CHECKING:
    from benchmarks.simulation.session import FleetSession


class Study(msgspec.Struct, frozen=True, kw_only=True):
    machine: str
    histories: tuple[History, ...] = ()


class Runs:
    """Every setting is run once. Args: path of the file, None to keep nothing; data_folder with the published sets;
    folder for encoder outputs and the like, best in memory; processes, one thread each."""

    def __init__(self, path: Path | None, machine: str, data_folder: Path, folder: Path, processes: int) -> None:
        self._path, self._machine, self._processes = path, machine, processes
        self._data_folder, self._folder = data_folder, folder
        self._known: dict[Setting, History] = {}
        if path is not None and path.exists():
            study = msgspec.json.decode(path.read_bytes(), type=Study)
            self._machine = study.machine
            self._known = {history.setting: history for history in study.histories}

    @property
    def machine(self) -> str:
        return self._machine

    @property
    def cpu_s(self) -> float:
        """Of all runs that are known."""
        return sum(history.cpu_s for history in self._known.values())

    def known(self, settings: Iterable[Setting]) -> list[History]:
        """Of these the ones that have run."""
        return [self._known[setting] for setting in settings if setting in self._known]

    def run(self, settings: Iterable[Setting]) -> list[History]:
        """Histories of all these, in their order; what is not known yet is run first."""
        settings = list(settings)
        left = [setting for setting in dict.fromkeys(settings) if setting not in self._known]
        if left:
            self._run(left)
        return [self._known[setting] for setting in settings]

    def _run(self, left: Sequence[Setting]) -> None:
        load_pools(self._data_folder, self._folder / POOLS)  # once, before workers ask for it
        context = multiprocessing.get_context("spawn")
        start_s = time.monotonic()
        with ProcessPoolExecutor(self._processes, context, _begin_worker, (self._folder,)) as pool:
            futures = [pool.submit(_run_one, setting) for setting in left]
            for n_done, future in enumerate(as_completed(futures), 1):
                self._add(future.result())
                per_run_s = (time.monotonic() - start_s) / n_done
                _tell(future.result(), per_run_s * (len(left) - n_done))

    def _add(self, history: History) -> None:
        self._known[history.setting] = history
        if self._path is not None:
            study = Study(machine=self._machine, histories=tuple(self._known.values()))
            write_atomically(self._path, msgspec.json.format(msgspec.json.encode(study), indent=0))


POOLS = "pools.json"

DEFAULTS = msgspec.to_builtins(Setting(rule="", learning_rate=0, seed=0))


def described(setting: Setting) -> str:
    """What of a setting is not the default."""
    values = msgspec.to_builtins(setting).items()
    return ", ".join(f"{name} {value}" for name, value in values if value != DEFAULTS[name])


def _tell(history: History, left_s: float) -> None:
    last = history.last
    print(
        f"{described(history.setting)}: {history.points[0].mean:.4f} → {last.mean:.4f} mean, {last.worst:.4f} worst"
        f"{', FAILED: ' + history.failed if history.failed else ''}; {history.cpu_s:.0f} CPU s; "
        f"about {left_s / 60:.0f} min left of this part",
        file=sys.stderr,
        flush=True,
    )


# --- in a worker ------------------------------------------------------------------------------------------------------

_session: FleetSession
_folder: Path


def _begin_worker(folder: Path) -> None:
    global _session, _folder
    os.environ["OMP_NUM_THREADS"] = "1"  # numpy's merging as well
    prepare_for_training()
    from benchmarks.simulation.session import FleetSession  # imports torch

    _session, _folder = FleetSession(), folder


def _run_one(setting: Setting) -> History:
    from benchmarks.simulation.federation import run_fleet

    pools = load_pools(_folder, _folder / POOLS)
    texts = boards(pools, setting.partition, setting.seed, setting.n_train, setting.n_held_out)
    return run_fleet(setting, texts, _folder / f"process-{os.getpid()}", _session)
