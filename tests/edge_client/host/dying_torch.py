"""A package that calls itself torch, and dies as builds for other processors do. Written into a folder that comes first
in PYTHONPATH."""

from __future__ import annotations

from pathlib import Path

_CODE = """
import os, signal
__version__ = "{version}"
float32, bfloat16 = "fp32", "bf16"
{at_import}

class version:
    cuda = None

class Numbers:
    def t(self): return self
    def float(self): return self
    def all(self): return True
    def __eq__(self, other): return self

def set_num_threads(number):
    global threads
    threads = number

def ones(*shape, dtype, device): return Numbers()

def mm(a, b):
    {at_product}
    return Numbers()
"""


def write_torch(folder: Path, *, version: str, at_import: str = "pass", at_product: str = "pass") -> Path:
    """Write the package, with the statements that it runs when it is imported and at every product; the folder."""
    (folder / "torch").mkdir(parents=True)
    code = _CODE.format(version=version, at_import=at_import, at_product=at_product)
    (folder / "torch/__init__.py").write_text(code)
    info = folder / f"torch-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    return folder


def dies_of(name: str, when: str = "True") -> str:
    """A statement that ends the process by a signal."""
    return f"if {when}: os.kill(os.getpid(), signal.{name})"
