"""Docstrings say the same in three styles."""

from __future__ import annotations

import pytest

from builtin_base.training.text import fields
from tests.fakes.base_training import DOCSTRING

NUMPY = """Do it.

Parameters
----------
size : int
    How large it is.
*rest
    More.

Returns
-------
int
    The sum.

Raises
------
KeyError
    If absent."""
SPHINX = """Do it.

:param int size: How large
    it is.
:param rest: More.
:returns: The sum.
:raises KeyError: If absent."""


@pytest.mark.parametrize("text", [DOCSTRING, NUMPY, SPHINX])
def test_fields_of_three_styles(text: str) -> None:
    """The three common styles give the same parameters, result and errors."""
    found = fields.parse(text)
    assert found.parameters == {"size": "How large it is.", "rest": "More."}
    assert found.returns == "The sum." and found.raises == {"KeyError": "If absent."}
