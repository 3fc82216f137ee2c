"""The loss that `quantize report` shows is T5's, and what stands in its way is said in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from braid_common.base.files import BaseFilesError
from braid_common.text_form import DEFAULT_PREFIX
from edge_client.engines.lean import base_loss as module
from edge_client.engines.lean.base_loss import base_loss
from tests.fakes.models.random_t5 import random_t5, save_base
from tests.fakes.runs import UNEVEN_T5

SIZES = {name: value for name, value in UNEVEN_T5.items() if type(value) is int}


def words(n_words: int, first: int) -> str:
    return " ".join(f"w{(first + 7 * i) % 90}" for i in range(n_words))


def save_tokenizer(folder: Path, n_words: int) -> Tokenizer:
    pieces = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i + 3 for i in range(n_words)}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_that_of_transformers(tmp_path: Path) -> None:
    """Examples of unequal lengths, a decoder deeper than the encoder, texts longer than the farthest position."""
    model = random_t5(**SIZES)
    save_base(model, tmp_path)
    tokenizer = save_tokenizer(tmp_path, 90)
    texts = [(words(n, 1), words(m, 2)) for n, m in ((16, 3), (4, 18), (29, 1), (11, 5), (2, 2))]

    loss, n_tokens = base_loss(tmp_path, "fp32", texts)

    prefixed = [(DEFAULT_PREFIX + source, target) for source, target in texts]
    ids = [tuple([*tokenizer.encode(text).ids, 1] for text in pair) for pair in prefixed]
    pairs = [(torch.tensor([s]), torch.tensor([t])) for s, t in ids]
    expected = sum(float(model(input_ids=s, labels=t).loss) * t.numel() for s, t in pairs) / n_tokens
    assert n_tokens == sum(t.numel() for _, t in pairs)
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_another_bases_tokenizer_is_refused(tmp_path: Path) -> None:
    """A token beyond the embedding's rows would point nowhere."""
    save_base(random_t5(**SIZES), tmp_path)
    save_tokenizer(tmp_path, 100)

    with pytest.raises(BaseFilesError, match="knows 103 pieces, the base's embedding only 96"):
        base_loss(tmp_path, "fp32", [("w1", "w2")])


@pytest.mark.slow
def test_a_base_that_has_no_room_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes and what is free are told, before anything is read."""
    save_base(random_t5(**SIZES), tmp_path)
    save_tokenizer(tmp_path, 90)
    board = replace(module.probe_board(), memory_bytes=50_000)
    monkeypatch.setattr(module, "probe_board", lambda: board)

    with pytest.raises(BaseFilesError, match=r"in fp32 the base takes .* KiB, free are 48\.8 KiB"):
        base_loss(tmp_path, "fp32", [("w1", "w2")])
