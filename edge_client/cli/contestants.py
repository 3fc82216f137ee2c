"""The contestants of an evaluation as a person names them: adapters by folder, by NAME=FOLDER, or by version."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from braid_common.text_form import DEFAULT_FORM, TextForm
from edge_client.agent.console import Console
from edge_client.base.adapter_form import read_form
from edge_client.base.locate import BUILTIN, resolve
from edge_client.cli.own_strands import OwnStrands
from edge_client.errors import ConfigError
from edge_client.evaluation.answers import BASE
from edge_client.state.folder import StateFolder
from edge_client.state.personal_folder import StrandsFile

GLOBAL = "global"
"""The contestant with the adapter that the board holds."""

_HINT = "name a folder that `aggregator export` or PEFT wrote, or a version's number with --state"


@dataclass(frozen=True, slots=True)
class Entry:
    """An adapter that was asked for: its name in the report, and its folder or file, or else the version to fetch."""

    name: str
    path: Path | None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Contestants:
    """Everything about the contestants that is known before the base is loaded.

    Attributes:
        base_folder: the base of all of them.
        model: the same as a person knows it.
        paths: the adapter's folder or file by the contestant's name; None for the bare base, which comes first.
        forms: the form that each adapter was trained with, where that is known.
        own: the board's local strands by the name of the contestant that has them on top.
    """

    base_folder: Path
    model: str
    paths: Mapping[str, Path | None]
    forms: Mapping[str, TextForm]
    own: Mapping[str, StrandsFile] = field(default_factory=dict)

    def with_own(self, own: OwnStrands) -> Contestants:
        """These, and each adapter once more with the board's local strands on top; where none was named, the one that
        the board holds. Raises ConfigError, and BaseModelError where the base is not that of the strands."""
        own.require_base(self.base_folder)
        paths, forms = dict(self.paths), dict(self.forms)
        adapters = {name: path for name, path in paths.items() if path is not None}
        if not adapters:
            adapters = {GLOBAL: own.held_adapter()}
            forms[GLOBAL] = own.facts.form
        topped: dict[str, StrandsFile] = {}
        for name, path in adapters.items():
            own.require_run(path)
            paths[name] = paths[f"{name} + personal"] = path
            topped[f"{name} + personal"] = own.file
        return replace(self, paths=paths, forms=forms, own=topped)


def parse_adapters(words: Sequence[str]) -> list[Entry]:
    """The adapters that `--adapter` names, in order.

    Raises ConfigError where an adapter is not there, and where two have the same name.
    """
    entries = [_entry(word) for word in words]
    last_names = [entry.name for entry in entries]
    entries = [
        replace(entry, name=word) if last_names.count(entry.name) > 1 and _is_unnamed(word) else entry
        for entry, word in zip(entries, words, strict=True)
    ]
    seen = {BASE}
    for entry in entries:
        if entry.name in seen:
            raise ConfigError(
                f"two contestants are called {entry.name}",
                f"name one of them: --adapter OTHER={entry.path or entry.version}",
            )
        seen.add(entry.name)
    return entries


def _is_unnamed(word: str) -> bool:
    return "=" not in word or _is_there(Path(word))


def _is_there(path: Path) -> bool:
    """Whether something is at the path; not where it is longer than any path."""
    try:
        return path.expanduser().exists()
    except OSError:
        return False


def _entry(word: str) -> Entry:
    name, place = ("", word) if _is_unnamed(word) else word.split("=", 1)
    path = Path(place).expanduser()
    if place and _is_there(path):  # "" would be the folder we are in
        return Entry(name or path.resolve().name, path)
    if place.isascii() and place.isdigit() and len(place) <= 9:
        return Entry(name or f"version {int(place)}", None, int(place))
    raise ConfigError(f"there is no adapter at {place or repr(word)}", _HINT)


@contextlib.contextmanager
def gathered(entries: Sequence[Entry], model: str, state: Path) -> Iterator[Contestants]:
    """The contestants with their files: versions are fetched, and removed again afterwards.

    `model` "" is the base of the run that the versions are of, and without versions the builtin one. Raises ConfigError
    and BaseModelError, and where versions are fetched what `fetched_versions` does.
    """
    forms = {entry.name: read_form(entry.path) for entry in entries if entry.path is not None}
    paths: dict[str, Path | None] = {BASE: None, **{entry.name: entry.path for entry in entries}}
    versions = {entry.name: entry.version for entry in entries if entry.path is None}
    if not versions:
        model = model or BUILTIN
        yield Contestants(resolve(model), model, paths, _known(forms))
        return
    from edge_client.agent.downloads.adapter_versions import fetched_versions  # aiohttp is loaded only here

    console = Console(stream=sys.stderr)
    with fetched_versions(StateFolder(state), list(versions.values()), model, console) as fetched:
        for name, version in versions.items():
            paths[name] = fetched.paths[version]
            forms[name] = fetched.run.settings.text_form
        yield Contestants(fetched.base_folder, model or fetched.run.base.model, paths, _known(forms))


def _known(forms: Mapping[str, TextForm | None]) -> dict[str, TextForm]:
    return {name: form for name, form in forms.items() if form is not None}


def common_form(forms: Mapping[str, TextForm], changes: Mapping[str, object]) -> tuple[TextForm, list[str]]:
    """The form in which all contestants meet the texts, and a sentence about each whose own form is another.

    It is the first adapter's that is known, else the default, with `changes` by field's name, which were asked for.
    """
    first = next(iter(forms.values()), DEFAULT_FORM)
    form = replace(first, **changes)  # type: ignore[arg-type]
    return form, [
        f"{name} was trained with {_told(own, form)}, and is judged with {_told(form, own)}"
        for name, own in forms.items()
        if own != form
    ]


def _told(form: TextForm, other: TextForm) -> str:
    """The fields in which a form differs from another one."""
    names = [field.name for field in fields(TextForm) if getattr(form, field.name) != getattr(other, field.name)]
    return ", ".join(f"{name} {getattr(form, name)!r}" for name in names)
