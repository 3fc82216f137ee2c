"""A base's files, as a server gives them or somebody left them in a folder: judged, or refused with a sentence.

An input's first line is the name of the file that the rest takes the place of, in a folder that is whole otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from braid_common.base.check import check_base
from braid_common.base.files import CONFIG_FILE, INDEX_FILE, TOKENIZER_FILE, WEIGHTS_FILE, BaseFilesError
from braid_common.base.safetensors_header import LENGTH_BYTES
from fuzz.contract import Judge, Target, require
from fuzz.mutations import behind_first_line, mutate_bytes, mutate_json
from fuzz.tiny_base import config_json, tokenizer_json, weights, write_tiny_base

FILES = {
    CONFIG_FILE: config_json(),
    TOKENIZER_FILE: tokenizer_json(),
    WEIGHTS_FILE: weights(),
    INDEX_FILE: b"",
}
"""Files of a base with their honest content; an index is there only as an input."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A base's folder, of which one file at a time is another."""

    path: Path

    def check(self, data: bytes) -> str:
        name, _, content = data.partition(b"\n")
        file = self.path / name.decode("latin-1") if name.decode("latin-1") in FILES else self.path / CONFIG_FILE
        if file.name == INDEX_FILE:
            (self.path / WEIGHTS_FILE).rename(self.path / "model-1.safetensors")
        file.write_bytes(content)
        try:
            checked = check_base(self.path)
        except BaseFilesError as error:
            require(str(error), "a refusal is a sentence")
            return "refused"
        finally:
            self._mend(file)
        require(checked.tensors, "a base has tensors")
        return "taken"

    def _mend(self, file: Path) -> None:
        if file.name == INDEX_FILE:
            file.unlink()
            (self.path / "model-1.safetensors").rename(self.path / WEIGHTS_FILE)
        else:
            file.write_bytes(FILES[file.name])


@contextmanager
def _open(folder: Path) -> Iterator[Judge]:
    write_tiny_base(folder)
    yield Judge(_Folder(folder).check)


def _mutate_content(content: bytes, rng: random.Random) -> bytes:
    """JSON by its values; a safetensors file by those of its header, whose length is right again after it."""
    if content[:1] in b"{[":
        return mutate_json(content, rng)
    if rng.random() < 0.3:
        return mutate_bytes(content, rng, [content])
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    header = mutate_json(content[LENGTH_BYTES : LENGTH_BYTES + length], rng)
    return len(header).to_bytes(LENGTH_BYTES, "little") + header + content[LENGTH_BYTES + length :]


BASE = Target(
    name="base",
    about="files of a base as it comes in",
    max_bytes=16384,
    open=_open,
    mutate=behind_first_line(_mutate_content, [name.encode() for name in FILES]),
)
