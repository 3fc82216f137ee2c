"""Train the builtin base's tokenizer: a unigram model with T5's special tokens and T5's pipeline.

The pipeline is the one that transformers' T5 tokenizer builds (whitespace split, Metaspace, eos appended), so the
file gives the same ids through the ``tokenizers`` library alone, which is all that a board needs.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from tokenizers.trainers import UnigramTrainer

VOCAB_SIZE = 8_000
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
N_SENTINELS = 100
_TYPOGRAPHY = {"[\u2018\u2019\u201b\u2032]": "'", "[\u201c\u201d\u201e\u2033]": '"', "[\u2010-\u2015\u2212]": "-"}
"""Typographic characters that NFKC keeps apart from the ASCII ones everybody means."""


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Train a tokenizer of exactly `vocab_size` pieces; the last 100 are ``<extra_id_99>`` .. ``<extra_id_0>``.

    Args:
        texts: what to learn pieces from; a few tens of megabytes suffice.
        vocab_size: pieces in all, special tokens included.

    Returns:
        A tokenizer with pad 0, eos 1, unk 2 that appends eos, ready for `Tokenizer.save`.

    Raises:
        ValueError: if the text holds too few distinct pieces for the size asked for.
    """
    tokenizer = _pipeline(Tokenizer(Unigram()))
    trainer = UnigramTrainer(
        vocab_size=vocab_size - N_SENTINELS,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",  # noqa: S106 -- a piece of text, not a password
        initial_alphabet=sorted(set(string.printable) - set(string.whitespace)),
        show_progress=False,
        max_piece_length=16,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocab = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    if len(vocab) != vocab_size - N_SENTINELS:
        raise ValueError(f"the text gave {len(vocab)} pieces, not {vocab_size - N_SENTINELS}: use more text")
    sentinels = sentinel_names()[::-1]
    vocab += [(name, 0.0) for name in sentinels]  # T5's order: <extra_id_0> is the last piece
    complete = _pipeline(Tokenizer(Unigram(vocab, unk_id=UNK_ID)))
    complete.add_special_tokens(["<pad>", "</s>", "<unk>", *sentinels])
    complete.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", EOS_ID)]
    )
    return complete


def sentinel_names() -> list[str]:
    """Name the span-corruption sentinels, in the order in which they mark spans."""
    return [f"<extra_id_{i}>" for i in range(N_SENTINELS)]


def sentinel_id(index: int, vocab_size: int = VOCAB_SIZE) -> int:
    """Id of the sentinel that marks span number `index`."""
    return vocab_size - 1 - index


def write_config(folder: Path) -> None:
    """Write the ``tokenizer_config.json`` by which transformers' AutoTokenizer loads ``tokenizer.json`` as it is."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "additional_special_tokens": sentinel_names(),
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _pipeline(tokenizer: Tokenizer) -> Tokenizer:
    replaced = [normalizers.Replace(Regex(pattern), ascii_) for pattern, ascii_ in _TYPOGRAPHY.items()]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *replaced])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    return tokenizer
