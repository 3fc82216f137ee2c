"""The results that are kept between runs, and the page that is made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from arm64.cores import CORES
from arm64.fast_tests import LEFT_OUT
from arm64.page import cores_table, fast_tests_table, memory_table
from arm64.proof import Row
from arm64.roots import REPOSITORY
from arm64.shell import run
from edge_client.host.machine import describe_machine
from scripts.generated_page import with_section

PAGE = REPOSITORY / "docs/results/arm.md"


@dataclass(frozen=True, slots=True)
class Results:
    """A folder with a file for each thing that was found out; the page is brought up to date with every file."""

    folder: Path

    def has_core(self, name: str, made_of: str) -> bool:
        """Whether this package has given the core's row already."""
        file = self._file(f"core-{name}")
        return file.exists() and msgspec.json.decode(file.read_bytes(), type=Row).made_of == made_of

    def keep_core(self, row: Row) -> None:
        """A core's row."""
        self._keep(f"core-{row.core}", msgspec.to_builtins(row))

    def keep_memory(self, name: str, found: dict[str, Any]) -> None:
        """A training's memory; `name`: of the setting and where it ran."""
        self._keep(f"memory-{name}", found)

    def keep_tests(self, found: dict[str, Any]) -> None:
        """The outcome of the tests."""
        self._keep("tests", found)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _keep(self, name: str, value: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file(name).write_text(json.dumps(value, indent=2))
        self._write_page()

    def _write_page(self) -> None:
        """Put all that is known into the page."""
        page = PAGE.read_text(encoding="utf-8")
        for name, text in self._sections().items():
            page = with_section(page, name, text)
        PAGE.write_text(page, encoding="utf-8")

    def _sections(self) -> dict[str, str]:
        order = [core.name for core in CORES]
        rows = [msgspec.json.decode(path.read_bytes(), type=Row) for path in self.folder.glob("core-*.json")]
        memory = [json.loads(path.read_text()) for path in sorted(self.folder.glob("memory-*.json"))]
        qemu = run(["qemu-aarch64-static", "--version"]).splitlines()[0]
        sections = {"machine": f"Machine: {describe_machine('torch')}; {qemu}."}
        if rows:
            sections["cores"] = cores_table(sorted(rows, key=lambda row: order.index(row.core)))
        if memory:
            sections["memory"] = memory_table(memory)
        if self._file("tests").exists():
            sections["tests"] = fast_tests_table(json.loads(self._file("tests").read_text()), LEFT_OUT)
        return sections
