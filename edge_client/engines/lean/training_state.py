"""A training that is saved on disk, so that a board that lost its power goes on with the next optimiser step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from braid_common.example import Example
from edge_client.engines.lean.tensor_file import SavedTensors, load_tensors, save_tensors
from edge_client.errors import DiskError
from edge_client.jobs.messages import TrainJob

MIN_INTERVAL_S = 5.0
"""Work that a power cut may cost, where the saved training is small."""

MAX_BYTES_PER_S = 500_000
"""Writing on average, so that a large saved training does not wear out an SD card: 20 MB are written every 40 s."""

FORMAT = 4
"""Version of the numbers and matrices in a saved training. Of another version nothing is taken up: the round begins
again. 2: sketched tokens by turn. 3: no eos behind a cut target. 4: with a checksum."""


class TrainingStateFile:
    """The file where one job's training is saved and resumed from; with path "" nothing is. `unsaved`: why the last
    `save` has left the one before in its place, "" where it has not.

    Args:
        path: of the file.
        key: what it belongs to, as `training_state_key` makes it.
        clock: monotonic seconds.
    """

    def __init__(self, path: str, key: str, clock: Callable[[], float]) -> None:
        self._path = Path(path) if path else None
        self._key = key
        self._clock = clock
        self._due_s = 0.0
        self._has_one = False
        self.unsaved = ""

    def load(self) -> SavedTensors | None:
        """The saved training; None where there is none of this very work."""
        saved = load_tensors(self._path, self._key) if self._path is not None else None
        self._has_one = saved is not None
        return saved

    @property
    def exists(self) -> bool:
        """Whether any training is saved there, of this work or not."""
        return self._path is not None and self._path.exists()

    def is_due(self) -> bool:
        """Whether enough time has passed since the last `save` for another one."""
        return self._path is not None and self._clock() >= self._due_s

    def save(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Write the training as it is now.

        Raises DiskError where none could be saved yet: a round is not begun that a disk has no room for. Later on
        `unsaved` says why it could not, training goes on, and the next step tries again.
        """
        if self._path is None:
            return
        try:
            size_bytes = save_tensors(self._path, self._key, tensors, numbers)
        except DiskError as error:
            if not self._has_one:
                raise
            self.unsaved = error.message
            self._due_s = self._clock() + MIN_INTERVAL_S
        else:
            self.unsaved, self._has_one = "", True
            self._due_s = self._clock() + interval_s(size_bytes)


def training_state_key(job: TrainJob, examples: Sequence[Example]) -> str:
    """Digest of all that a round's values depend on: run, task, board, and the text itself.

    The plan is no part of it: when memory runs short, a round goes on in a leaner way from where it was, if need be
    with fewer strands (`restore`).
    """
    run = msgspec.structs.replace(job.run, state="training", round=0, version=0, values=())  # these change meanwhile
    digest = hashlib.sha256(msgspec.msgpack.encode((FORMAT, run, job.spec, job.board_id)))
    if job.rewards:
        digest.update(msgspec.msgpack.encode(job.rewards))
    for example in examples:
        texts = (example.source, *example.targets)
        digest.update(f"{' '.join(str(len(text)) for text in texts)} {''.join(texts)}".encode())
    return digest.hexdigest()


def interval_s(size_bytes: int) -> float:
    """Seconds from one save of this size to the next."""
    return max(MIN_INTERVAL_S, size_bytes / MAX_BYTES_PER_S)


def restore(saved: SavedTensors, targets: Mapping[str, Tensor]) -> bool:
    """Put saved values into `targets`, which are changed; False, with none changed, where one of them was not saved.

    Of a larger saved matrix the leading block is taken: a weight's strands nest, so that the leading columns of B and
    rows of A are the training of a round with fewer.
    """
    for name, target in targets.items():
        rows, columns = saved.shapes.get(name, (0, 0))
        if rows < target.shape[0] or columns < target.shape[1]:
            return False
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(saved.read(name)[: target.shape[0], : target.shape[1]])
    return True
