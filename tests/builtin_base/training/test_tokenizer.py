"""The tokenizer is T5's in kind, knows all of ASCII, and can be trained anew."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import builtin_base
from braid_common.text_form import DEFAULT_PREFIX
from builtin_base.training.tokenizer import (
    EOS_ID,
    PAD_ID,
    UNK_ID,
    sentinel_id,
    sentinel_names,
    train_tokenizer,
)
from tests.fakes.base_training import SENTENCE


def test_the_tokenizer_is_t5s_in_kind_and_knows_all_of_ascii() -> None:
    """Special ids as T5's, eos appended, sentinels at the end, and no unknown pieces in technical English."""
    tokenizer = Tokenizer.from_file(str(builtin_base.folder() / "tokenizer.json"))
    text = "Return the “mean” of x[i] ** 2 — it’s 3.14 % of {total} ~ `sum`; see <https://example.org/#a|b>. \\o/ @&$^"

    encoded = tokenizer.encode(DEFAULT_PREFIX + text)

    assert [tokenizer.token_to_id(piece) for piece in ("<pad>", "</s>", "<unk>")] == [PAD_ID, EOS_ID, UNK_ID]
    assert [tokenizer.token_to_id(name) for name in sentinel_names()] == [sentinel_id(i) for i in range(100)]
    assert tokenizer.get_vocab_size() == 8_000
    assert encoded.ids[-1] == EOS_ID
    assert UNK_ID not in encoded.ids
    plain = text.replace("“", '"').replace("”", '"').replace("’", "'").replace("—", "-")
    assert tokenizer.decode(encoded.ids) == DEFAULT_PREFIX + plain


@pytest.mark.slow
def test_transformers_reads_the_same_ids() -> None:
    """`AutoTokenizer` on the folder agrees with the tokenizers library."""
    AutoTokenizer = pytest.importorskip("transformers").AutoTokenizer

    folder = builtin_base.folder()
    text = "summarize: Tokenizer.encode(text)\nTurns a text into ids, e.g. <extra_id_0> into 7999."

    theirs = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]

    assert theirs == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def test_a_new_tokenizer_is_of_the_same_kind() -> None:
    """Few pieces of a module's text: special ones first, sentinels last, and every text comes back."""
    tokenizer = train_tokenizer(Path(argparse.__file__).read_text().splitlines()[:600], vocab_size=400)

    ids = tokenizer.encode(SENTENCE).ids

    assert tokenizer.get_vocab_size() == 400
    assert tokenizer.token_to_id("<extra_id_0>") == 399 == sentinel_id(0, 400)
    assert ids[-1] == EOS_ID and UNK_ID not in ids
    assert tokenizer.decode(ids) == SENTENCE


def test_too_little_text_makes_no_tokenizer() -> None:
    """The message says what to do."""
    with pytest.raises(ValueError, match="use more text"):
        train_tokenizer([SENTENCE], vocab_size=8_000)
