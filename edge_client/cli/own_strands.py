"""The board's own strands as commands take them: which ones there are, and what they may be put on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from braid_common.base.files import base_digest
from edge_client.base.adapter_form import read_run
from edge_client.errors import BaseModelError, ConfigError, base_errors
from edge_client.state.folder import StateFolder
from edge_client.state.held_adapter import HeldAdapter
from edge_client.state.personal_folder import PersonalFacts, StrandsFile

_WITHOUT = "leave them out with --global"


@dataclass(frozen=True, slots=True)
class OwnStrands:
    """The local strands that a board trained last, and the state folder that they are in."""

    facts: PersonalFacts
    file: StrandsFile
    folder: StateFolder

    @property
    def model(self) -> str:
        """Their base as `--model` takes it: the folder that it was trained in, else its name."""
        if Path(self.facts.base_folder).is_dir():
            return self.facts.base_folder
        base = self.facts.base
        return f"{base.model}@{base.revision}" if base.revision else base.model

    def held_adapter(self) -> Path:
        """The global adapter that the board holds of their run. Raises ConfigError where it holds none now."""
        path = HeldAdapter(self.folder.held).sound_file(self.facts.run_id)
        if path is None:
            raise ConfigError(
                f"this board holds no global adapter of run {self.facts.run_id} now, on which its local strands are",
                "name one with --adapter, wait for the end of the round, or " + _WITHOUT,
            )
        return path

    def require_base(self, base_folder: Path) -> None:
        """Raise BaseModelError where the base in a folder is not theirs. Reads all of it."""
        with base_errors("name another folder with --model"):
            digest = base_digest(base_folder)
        if digest != self.facts.base.digest:
            raise BaseModelError(
                f"the local strands of this board are of another base, {self.facts.base.model}, "
                f"than the one in {base_folder}",
                f"give --model {self.model}, or " + _WITHOUT,
            )

    def require_run(self, adapter: Path) -> None:
        """Raise ConfigError where an adapter says that it is of another run."""
        run_id = read_run(adapter)
        if run_id and run_id != self.facts.run_id:
            raise ConfigError(
                f"{adapter} is of run {run_id}, the local strands of this board are of run {self.facts.run_id}",
                f"name an adapter of {self.facts.run_id}, or " + _WITHOUT,
            )


def own_strands(state: Path) -> OwnStrands | None:
    """The local strands that the board of this state folder trained last; None where it has none."""
    folder = StateFolder(state)
    facts = folder.personal.newest()
    return None if facts is None else OwnStrands(facts, folder.personal.file(facts), folder)
