"""Docstrings become examples: the same ones everywhere, each once, and none from tests or vendored copies."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from braid_common.example import Example
from builtin_base import docstrings

BODY = "Every value is looked at once, from the first to the last, and the sums are kept in double precision."

SHAPES = f'''
"""Tools for plane and solid shapes of all kinds.

{BODY}
"""

class Circle:
    """A round shape with a centre and a radius. It never has corners.

    {BODY} Circles are compared by their radius alone, whatever their centre.
    """

    def __init__(self, centre, radius=1.0, *, unit="m"):
        self.centre = centre

    def area(self):
        """Compute the area that the circle covers.

        Returns
        -------
        area : float
            In square units of the radius, exact to the last bit that a double can hold.
        """

    def twin(self):
        """Compute the area that the circle covers.

        The same summary as before, with a body that says something else entirely.
        """
'''
"""The source of the package ``shapes``."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages: ``shapes``, with a test folder and a vendored copy, and ``other``, which shares a text."""
    write(tmp_path / "shapes" / "__init__.py", SHAPES)
    write(
        tmp_path / "shapes" / "_native.py",
        f'''
        def dist(a, /, b, *rest, scale, **options):
            """dist(a, b, *rest) -> float

            Measure the way from :class:`~shapes.Point` ``a`` to ``b``.

            {BODY} The scale multiplies the answer.
            """

        def short():
            """Return the short answer at once.

            Too short a body.
            """

        def parrot():
            """Say the same thing once again.

            This function will say the same thing once again whenever anybody calls it with anything.
            """

        def fields(x):
            """
            :param x: no summary line stands here, only fields that a tool reads
            """
        ''',
    )
    write(tmp_path / "shapes" / "broken.py", "def half(:")
    write(tmp_path / "shapes" / "tests" / "helpers.py", f'"""A helper that only tests use.\n\n{BODY} Tests."""')
    write(tmp_path / "shapes" / "_vendor" / "copy.py", f'"""A copy of another library.\n\n{BODY} Copy."""')
    write(tmp_path / "other" / "__init__.py", f'"""Tools for plane and solid shapes of all kinds.\n\n{BODY}\n"""')
    return tmp_path


def write(path: Path, source: str) -> None:
    """Write a source file, its common indentation removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding="utf-8")


def by_id(examples: list[Example]) -> dict[str, Example]:
    """Find examples by their id."""
    return {example.id: example for example in examples}


def test_a_summary_line_is_the_target_and_the_rest_the_source(site: Path) -> None:
    """Source: signature line and body on one line; target: the first sentence; markup of roles and literals gone."""
    found = by_id(docstrings.extract("shapes", root=site))

    assert set(found) == {"shapes:", "shapes:Circle", "shapes:Circle.area", "shapes._native:dist"}
    assert found["shapes:Circle"].target == "A round shape with a centre and a radius."
    assert found["shapes:Circle"].source.startswith("Circle(centre, radius, unit)\nIt never has corners. Every value")
    assert found["shapes:Circle.area"].source.startswith("Circle.area()\nReturns area : float In square units")
    assert found["shapes._native:dist"].target == "Measure the way from shapes.Point a to b."
    assert found["shapes._native:dist"].source.startswith("dist(a, b, *rest, scale, **options)\nEvery value")
    assert {example.group for example in found.values()} == {"shapes"}


def test_no_target_and_no_source_comes_twice(site: Path) -> None:
    """`twin` repeats the summary of `area`: the first is kept."""
    examples = docstrings.extract("shapes", root=site)

    assert len({example.target for example in examples}) == len(examples)
    assert len({example.source for example in examples}) == len(examples)


def test_the_order_is_the_same_each_time(site: Path) -> None:
    """Two readings agree, so that an example's number means the same on every board."""
    assert docstrings.extract("shapes", root=site) == docstrings.extract("shapes", root=site)


def test_a_text_that_two_libraries_share_falls_on_one_side(site: Path) -> None:
    """A board that trains on a text must not be tested on it through another library."""
    text = ("shapes()\nbody", "Summary of it all.")
    ours = [Example(f"ours:{i}", "ours", f"{text[0]} {i}", text[1]) for i in range(400)]
    theirs = [Example(f"theirs:{i}", "theirs", f"{text[0]} {i}", text[1]) for i in range(400)]

    train, held_out = docstrings.split([*ours, *theirs], held_out_share=0.1)

    assert {e.source for e in train}.isdisjoint(e.source for e in held_out)
    assert len(train) + len(held_out) == 800
    assert 0.05 < len(held_out) / 800 < 0.15


def test_the_split_is_the_one_that_boards_already_use() -> None:
    """Frozen: another hash would move test texts into training on boards that were upgraded."""
    assert docstrings.hash_share("source\0target") == pytest.approx(0.9501644174, abs=1e-9)


def test_an_unknown_library_is_an_error_that_names_others(site: Path) -> None:
    """The message lets the reader choose at once."""
    with pytest.raises(LookupError, match=r"no library named 'nothing'.*shapes"):
        docstrings.extract("nothing", root=site)


@pytest.mark.parametrize("name", ["../shapes", "shapes.sub", "", "sys"])
def test_what_is_no_readable_package_is_refused(site: Path, name: str) -> None:
    """Paths, submodules and modules without source are not libraries."""
    with pytest.raises(LookupError):
        docstrings.extract(name, root=site if name != "sys" else None)


def test_a_library_is_found_without_being_imported(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a library's texts must not run its code."""
    write(site / "explosive" / "__init__.py", f'"""Goes off when it is imported.\n\n{BODY}"""\nraise SystemExit(1)')
    monkeypatch.syspath_prepend(str(site))

    examples = docstrings.extract("explosive")

    assert [example.target for example in examples] == ["Goes off when it is imported."]
    assert "explosive" in docstrings.installed_libraries()


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("Sort by key, e.g. a name, and stop. Then return.", "Sort by key, e.g. a name, and stop."),
        ("Two lines make\none summary line\n\nBody.", "Two lines make one summary line"),
        ("Title of it\n===========\n\nBody.", "Title of it"),
        ("Return a thing.\nParameters\n----------\nx : int", "Return a thing."),
        ("Return a thing\nExamples\n--------\n>>> 1", "Return a thing"),
        ("Add things up.\n:param x: what to add", "Add things up."),
        ("See `the docs <https://example.org>`_ for more.", "See the docs for more."),
        (">>> 1 + 1\n2", ""),
        ("", ""),
    ],
)
def test_summary_lines(text: str, summary: str) -> None:
    """A summary ends at its sentence, at a heading, at a field list or at a blank line."""
    assert docstrings.split_summary(text)[0] == summary


def test_a_long_body_is_cut_at_a_word() -> None:
    """Boards with little memory get a bounded source."""
    text = "Write a long story about nothing.\n\n" + "word " * 2_000

    pair = docstrings.to_pair(docstrings.Docstring("story", "story()", text))

    assert pair is not None
    assert len(pair[0]) <= len("story()\n") + docstrings.MAX_BODY_CHARS
    assert pair[0].endswith("word")


def test_another_alphabet_is_left_out() -> None:
    """The builtin base and FLAN-T5's tokenizer know little beyond ASCII."""
    text = "Return the name of a thing.\n\n" + "слово за словом " * 20 + " and some words of plain English to pass"

    assert docstrings.to_pair(docstrings.Docstring("f", "f()", text)) is None
