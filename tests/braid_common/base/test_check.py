"""The judgement on whole bases: those of real models, and what the library that boards use says of their tokenizers."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import builtin_base
from braid_common.base.check import check_base
from braid_common.base.files import BaseFilesError
from braid_common.base.t5_config import FLAN_T5, T5Config
from braid_common.base.t5_layout import tensor_shapes
from braid_common.base.tokenizer import check_tokenizer
from tests.fakes.models.bases import word_tokenizer, write_base
from tests.fakes.runs import TINY_T5

SHARED = Path(__file__).parents[3] / "shared"
NUMBERS = T5Config.parse(TINY_T5)


def test_the_base_that_ships_with_the_project_is_one() -> None:
    """Its matrices are int8 rows with scales."""
    base = check_base(builtin_base.folder())

    assert base.config.vocab_size == 8000
    assert base.tensors["shared.weight"].dtype == "I8"


@pytest.mark.skipif(not SHARED.exists(), reason="the shared inputs are not beside this checkout")
def test_a_checkpoint_in_shards_with_its_index_is_one() -> None:
    """As transformers saves it, generation_config.json beside it."""
    base = check_base(SHARED / "cases" / "base_sharded_tiny")

    assert len({tensor.path for tensor in base.tensors.values()}) == 3


@pytest.mark.skipif(not SHARED.exists(), reason="the shared inputs are not beside this checkout")
def test_t5s_own_tokenizer_fits_flan_t5s_embedding(tmp_path: Path) -> None:
    """32,100 pieces, 32,128 rows; an embedding cut to fewer rows than there are pieces is refused."""
    shutil.copy(SHARED / "tokenizer" / "tokenizer.json", tmp_path)

    check_tokenizer(tmp_path, FLAN_T5["flan-t5-small"])

    with pytest.raises(BaseFilesError, match="knows 32100 pieces, the base's embedding only 8000"):
        check_tokenizer(tmp_path, T5Config.parse({**TINY_T5, "vocab_size": 8000}))


@pytest.mark.parametrize("kind", ["WordLevel", "BPE", "WordPiece", "Unigram"])
@pytest.mark.parametrize(("n_pieces", "fits"), [(120, True), (90, True), (121, False)])
def test_every_kind_of_tokenizer_is_counted_as_the_library_counts_it(
    tmp_path: Path, kind: str, n_pieces: int, fits: bool
) -> None:
    """The tokenizers library, which boards use and servers lack, agrees about the number of pieces."""
    tokenizers = pytest.importorskip("tokenizers")
    vocab: Any = {f"p{i}": i for i in range(n_pieces)}
    models: dict[str, dict[str, Any]] = {
        "WordLevel": {"vocab": vocab, "unk_token": "p2"},
        "BPE": {"vocab": vocab, "merges": []},
        "WordPiece": {
            "vocab": vocab,
            "unk_token": "p2",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 9,
        },
        "Unigram": {"vocab": [[piece, -1.0] for piece in vocab], "unk_id": 2},
    }
    text = json.dumps({**word_tokenizer(n_pieces), "model": {"type": kind, **models[kind]}})
    (tmp_path / "tokenizer.json").write_text(text)

    assert tokenizers.Tokenizer.from_str(text).get_vocab_size() == n_pieces
    if fits:
        check_tokenizer(tmp_path, NUMBERS)
    else:
        with pytest.raises(BaseFilesError, match="knows 121 pieces"):
            check_tokenizer(tmp_path, NUMBERS)


@pytest.mark.slow
def test_what_the_error_about_pickled_weights_says_makes_a_base(tmp_path: Path) -> None:
    """The command in it, as it stands there, on weights in two pickles with a head of their own; what lies beside them
    stays as it was."""
    torch = pytest.importorskip("torch")
    config = {**TINY_T5, "tie_word_embeddings": False}
    write_base(tmp_path, config)
    tensors = {name: torch.randn(shape) for name, shape in tensor_shapes(T5Config.parse(config)).items()}
    names = sorted(tensors)
    for i, part in enumerate((names[:9], names[9:]), 1):
        torch.save({name: tensors[name] for name in part}, tmp_path / f"pytorch_model-0000{i}-of-00002.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BaseFilesError, match="never read") as caught:
        check_base(tmp_path)
    command = shlex.split(str(caught.value).partition("make them: ")[2])
    assert command[0] == "python"

    subprocess.run([sys.executable, *command[1:]], check=True)

    base = check_base(tmp_path)
    assert set(base.tensors) == set(tensors)
    head = base.tensors["lm_head.weight"]
    with head.path.open("rb") as file:
        file.seek(head.offset_bytes)
        assert file.read(head.size_bytes) == tensors["lm_head.weight"].numpy().tobytes()


@pytest.mark.parametrize("cut", range(0, 1400, 137))
def test_a_tokenizer_cut_anywhere_is_one_kind_of_error(tmp_path: Path, cut: int) -> None:
    """A download that broke off is named as that file."""
    write_base(tmp_path, TINY_T5)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:cut])

    with pytest.raises(BaseFilesError, match=r"tokenizer\.json cannot be read"):
        check_base(tmp_path)
