"""What the pages point at exists: links with their anchors, files, commands, papers; and pages that the code names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "deploy/RUNBOOK.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TOP = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
MODULE = re.compile(r"python -m ((?:benchmarks|chaos|scripts|demo|builtin_base)[\w.]*)")
IN_CODE = re.compile(r"docs/[\w/.-]+\.md|DECISIONS\.md|CONTRIBUTING\.md")
PAPER = re.compile(r"arxiv\.org/abs/([\d.]+)")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def cited_files(text: str) -> Iterator[str]:
    """Paths in backticks that mean one file or folder of the repository; not patterns, not things of other machines."""
    for span in CODE.findall(FENCE.sub("", text)):
        path = span.partition("::")[0].rstrip("/")
        is_path = re.fullmatch(r"[\w.-]+(/[\w.-]+)*", path)
        if is_path and (("/" in path and path.split("/")[0] in TOP) or path.endswith(".py")):
            yield path


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Names of all Python files, for pages that name a file of a folder they have just named."""
    return {path.name for top in TOP for path in (ROOT / top).rglob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file, and a heading of it where it names one."""
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.exists(), f"{page_id(page)} links to {target}"
            assert not anchor or file.suffix != ".md" or anchor in anchors(file), f"{page_id(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_cited_files_exist(page: Path, names: set[str]) -> None:
    """A path stands for a file or folder from the repository's root, a name alone for any Python file of that name."""
    for path in cited_files(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists() or ("/" not in path and path in names), f"{page_id(page)} cites {path}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist(page: Path) -> None:
    """`python -m X`: X is a module, or a package with a __main__."""
    for name in MODULE.findall(page.read_text(encoding="utf-8")):
        spec = find_spec(name)
        assert spec is not None, f"{page_id(page)} runs {name}"
        assert not spec.submodule_search_locations or find_spec(f"{name}.__main__"), f"{page_id(page)} runs {name}"


def test_papers_stand_in_their_files() -> None:
    """Each row of the index's table of methods names a file that cites the row's papers."""
    rows = [line.split(" | ") for line in (ROOT / "docs/index.md").read_text(encoding="utf-8").splitlines()]
    methods = [row for row in rows if len(row) == 4 and PAPER.search(row[1])]
    for _, papers, _, file in methods:
        text = (ROOT / file.strip(" |`")).read_text(encoding="utf-8")
        for paper in PAPER.findall(papers):
            assert paper in text, f"{file} does not cite {paper}"
    assert len(methods) > 25


def test_pages_that_the_code_names_exist() -> None:
    """Docstrings, comments and messages point at pages that are there."""
    missing = {}
    for path in [ROOT / "pyproject.toml", ROOT / "Makefile", *(p for top in TOP for p in (ROOT / top).rglob("*.py"))]:
        if path == Path(__file__).resolve():
            continue
        cited = IN_CODE.findall(path.read_text(encoding="utf-8"))
        if gone := sorted({name for name in cited if not (ROOT / name).exists()}):
            missing[page_id(path)] = gone
    assert missing == {}
