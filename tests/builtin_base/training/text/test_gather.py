"""Nothing that a test asks gets into the corpus, and nothing gets into it twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from builtin_base.training.text import gather, packages
from builtin_base.training.text.documents import Document, Harvest
from builtin_base.training.text.overlap import Reserved
from tests.fakes.base_training import SENTENCE

BODY = "The gradients of all leaves are added up, one after another, and written back into their places."
SECRET, OTHER = "Adds up the gradients of all leaves.", "Says something of its own about sums."
OWN = "Its body is its own, too, and nobody else has ever written these words down before."


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An excluded library, and one that copied from it."""
    for package, functions in {
        "torch": {"add": (SECRET, BODY)},
        "copycat": {"same_summary": (SECRET, OWN), "same_body": (OTHER, BODY), "fresh": (OTHER, f"{OWN} Nobody.")},
    }.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(
            "".join(f'def {name}():\n    """{first}\n\n    {rest}"""\n' for name, (first, rest) in functions.items())
        )
    return tmp_path


def test_no_text_of_an_excluded_library_gets_into_the_corpus(site: Path) -> None:
    """A copy of a test text, vendored in a package that is read, is dropped with its summary and with its body."""
    harvest = packages.read_package((site, "copycat"))
    refused = list(gather.excluded_docstrings([site]))
    tested = Reserved(text for text, _ in refused)

    documents, pairs, _ = gather.clean([harvest], tested)
    kept = gather.unrepeated(pairs, tested, {gather.answer_key(summary) for _, summary in refused})

    assert len(harvest.pairs) == 3
    assert [pair.source.partition("(")[0] for pair in kept] == ["fresh"]
    assert not [document for document in documents if BODY in document.text]
    assert "torch" not in {name for _, name in packages.packages_of([site])}


def test_repetitions_are_dropped_and_counted() -> None:
    """The same words with another full stop are the same text, and another language is none."""
    texts = [f"{SENTENCE}.", f"{SENTENCE}!", "der Ausschuss beschloss nach zwei Tagen, alle Tabellen zu drucken " * 3]

    documents, _, dropped = gather.clean(
        [Harvest([Document("page", "tides", text) for text in texts], [])], Reserved([])
    )

    assert [document.text for document in documents] == texts[:1]
    assert dropped.total() == 2
