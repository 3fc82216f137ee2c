"""The builtin base: its packed files are whole and small, and the script that made them can be trusted and resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import builtin_base
from braid_common.text_form import DEFAULT_PREFIX

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from builtin_base.training import (  # noqa: E402
    architecture,
    corpus,
    mixture,
    pack,
    sources,
    train,
)
from builtin_base.training.tokenizer import EOS_ID, PAD_ID, UNK_ID, sentinel_id, sentinel_names  # noqa: E402

pytestmark = pytest.mark.slow  # transformers alone takes seconds to import

TINY = {"d_model": 32, "d_kv": 8, "num_heads": 3, "d_ff": 48, "num_layers": 1, "num_decoder_layers": 1}
SETTINGS = train.Settings(1.0, task_tokens=600, seed=3)


@pytest.fixture(scope="module")
def tokens() -> mixture.Tokens:
    """A training side of random ids."""
    rng = np.random.default_rng(0)
    rows = [
        (rng.integers(3, 7900, 60).astype(np.uint16), np.append(rng.integers(3, 7900, 9), EOS_ID).astype(np.uint16))
        for _ in range(50)
    ]
    stream = rng.integers(3, 7900, 5_000).astype(np.uint16)
    return mixture.Tokens({"docstring": stream}, {"docstring": {80: rows}})


def test_tokenized_text_is_read_as_it_was_written(tokens: mixture.Tokens) -> None:
    """The cache of a run gives back every id of both sides."""
    empty = mixture.Tokens({}, {})

    read, held_out = mixture.decode_sides(mixture.encode_sides((tokens, empty)))

    assert held_out == empty
    assert read.streams.keys() == tokens.streams.keys()
    np.testing.assert_array_equal(read.streams["docstring"], tokens.streams["docstring"])
    for (source, target), (old_source, old_target) in zip(
        read.pairs["docstring"][80], tokens.pairs["docstring"][80], strict=True
    ):
        np.testing.assert_array_equal(source, old_source)
        np.testing.assert_array_equal(target, old_target)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run small matrices on one thread, and leave the other tests' setting as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def steps(state: train.State, tokens: mixture.Tokens, n_steps: int) -> list[dict[str, float]]:
    """Train some steps and give their losses."""
    with train.workers(2) as pool:
        return [train.step(state, SETTINGS, tokens, 0.1, pool) for _ in range(n_steps)]


def test_the_first_loss_is_that_of_knowing_nothing(tokens: mixture.Tokens) -> None:
    """Transformers' own initialisation of an untied head starts above 100."""
    state = train.start(SETTINGS, **TINY)

    losses = steps(state, tokens, 1)[0]

    assert losses == pytest.approx({"span": math.log(8_000), "summary": math.log(8_000)}, abs=0.3)
    train.check_first_loss(state.model, losses)
    with pytest.raises(ValueError, match="initialisation"):
        train.check_first_loss(state.model, {"span": 100.0})


def test_the_head_is_a_matrix_of_its_own() -> None:
    """Regression: transformers 5 ties it whatever the configuration says, and a run was trained that way."""
    model = architecture.build(architecture.config(**TINY), seed=0)

    assert model.lm_head.weight is not model.shared.weight
    assert not model.config.scale_decoder_outputs


def test_a_run_that_resumes_is_the_run_that_never_stopped(tokens: mixture.Tokens, tmp_path: Path) -> None:
    """Weights, optimizers and the order of batches all come back."""
    through = train.start(SETTINGS, **TINY)
    expected = steps(through, tokens, 4)
    stopped = train.start(SETTINGS, **TINY)
    steps(stopped, tokens, 2)
    train.save(stopped, tmp_path)

    resumed = train.start(SETTINGS, **TINY)
    assert train.resume(resumed, tmp_path)
    losses = steps(resumed, tokens, 2)

    assert (resumed.step, resumed.n_tokens) == (through.step, through.n_tokens)
    for ours, theirs in zip(losses, expected[2:], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    for name, weight in resumed.model.state_dict().items():
        torch.testing.assert_close(weight, through.model.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_training_lowers_the_loss(tokens: mixture.Tokens) -> None:
    """Even a tiny model learns fifty rows."""
    losses = steps(train.start(SETTINGS, **TINY), tokens, 12)

    assert losses[-1]["summary"] < losses[0]["summary"] - 0.1


def test_the_rate_rises_stays_and_falls() -> None:
    """Warmup, plateau, and a floor at the end of the planned time."""
    assert train.rate_factor(0.005) == pytest.approx(0.5)
    assert train.rate_factor(0.3) == 1.0
    assert train.rate_factor(1.0) == pytest.approx(train.FLOOR)
    assert train.rate_factor(1.2) == pytest.approx(train.FLOOR)


@pytest.mark.parametrize("denoiser", [denoiser for denoiser, _ in mixture.DENOISERS])
def test_corrupted_spans_can_be_put_back(denoiser: mixture.Denoiser) -> None:
    """Source and target together hold every token once, and their lengths fit the limits."""
    ids = np.arange(3, 3 + denoiser.row)

    source, target = mixture.corrupt_spans(ids, denoiser, np.random.default_rng(1))

    assert len(source) + len(target) == denoiser.size
    assert len(source) <= mixture.MAX_SOURCE
    assert source[-1] == target[-1] == EOS_ID
    spans = {int(part[0]): part[1:] for part in np.split(target[:-1], np.where(target >= sentinel_id(99))[0])[1:]}
    restored = [spans[i] if i in spans else np.array([i]) for i in map(int, source[:-1])]
    np.testing.assert_array_equal(np.concatenate(restored), ids)


def test_packing_keeps_each_value_within_half_a_step() -> None:
    """Int8 by rows: error at most half the row's scale; zero rows and vectors come back exactly."""
    rng = np.random.default_rng(2)
    matrix = torch.from_numpy(rng.normal(size=(7, 33)).astype(np.float32))
    matrix[3] = 0.0
    weights = {"a.weight": matrix, "norm.weight": torch.ones(5), "encoder.embed_tokens.weight": matrix}

    packed = pack.pack_weights(weights)
    restored = pack.unpack_weights(packed)

    assert set(packed) == {"a.weight", "a.weight.row_scale", "norm.weight"}
    assert packed["a.weight"].dtype == torch.int8
    step = matrix.abs().amax(1) / 127.0
    assert bool(((restored["a.weight"] - matrix).abs() <= step[:, None] / 2 + 1e-7).all())
    assert float(packed["a.weight.row_scale"][3]) == 1.0
    torch.testing.assert_close(restored["norm.weight"], torch.ones(5))
    with pytest.raises(ValueError, match="not finite"):
        pack.pack_weights({"bad": torch.tensor([[math.nan]])})


def test_the_model_folder_is_whole_and_small() -> None:
    """Every tensor of the configured T5 is there in the stored format, nothing else, in at most 12 MB."""
    folder = builtin_base.folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    expected = architecture.build(architecture.config(), seed=0).state_dict()
    repeated = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
        assert file.metadata()["format"] == pack.FORMAT

    assert pack.folder_bytes(folder) <= pack.MAX_FOLDER_BYTES
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert {name for name in stored if not name.endswith(".row_scale")} == set(expected) - repeated
    for name in set(expected) - repeated:
        assert stored[name].shape == expected[name].shape
        assert stored[name].dtype == (torch.int8 if expected[name].ndim == 2 else torch.float32)
        if expected[name].ndim == 2:
            assert stored[f"{name}.row_scale"].shape == expected[name].shape[:1]
    assert config["braid_storage"] == pack.STORAGE
    assert config["tie_word_embeddings"] is False
    assert not torch.equal(stored["shared.weight"], stored["lm_head.weight"])


def test_the_packed_model_has_learnt() -> None:
    """Greedy text for a docstring is English words, not noise; the model card carries measured scores."""
    folder = builtin_base.folder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    source = mixture.encode_source(tokenizer, "count_lines(path)\nReads the file line by line and returns how many.")

    written = pack.write_summaries(pack.load(folder), tokenizer, [source])

    assert written[0].strip()
    assert "Scores on held-out text" in (folder / "README.md").read_text(encoding="utf-8")


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


def test_transformers_reads_the_same_ids() -> None:
    """`AutoTokenizer` on the folder agrees with the tokenizers library."""
    from transformers import AutoTokenizer

    folder = builtin_base.folder()
    text = "summarize: Tokenizer.encode(text)\nTurns a text into ids, e.g. <extra_id_0> into 7999."

    theirs = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]

    assert theirs == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


def test_roff_is_reduced_to_prose() -> None:
    """Manual pages lose their macros and keep their words."""
    page = (
        '.TH LS 1\n.SH "NAME"\nls \\- list \\fIdirectory\\fP contents\n.SH DESCRIPTION\n.PP\nList \\(lqall\\(rq.\n.nf\n'
    )

    assert sources.strip_roff(page) == 'NAME\n\nls - list directory contents\n\nDESCRIPTION\n\nList "all".'


def test_no_text_of_an_excluded_library_gets_into_the_corpus(tmp_path: Path) -> None:
    """A copy of a test text, vendored in a package that is read, is dropped with its summary and with its body."""
    body = "The gradients of all leaves are added up, one after another, and written back into their places."
    secret, other = "Adds up the gradients of all leaves.", "Says something of its own about sums."
    own = "Its body is its own, too, and nobody else has ever written these words down before."
    for package, functions in {
        "torch": {"add": (secret, body)},
        "copycat": {"same_summary": (secret, own), "same_body": (other, body), "fresh": (other, f"{own} Nobody.")},
    }.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(
            "".join(f'def {name}():\n    """{first}\n\n    {rest}"""\n' for name, (first, rest) in functions.items())
        )
    harvest = sources.read_package((tmp_path, "copycat"))

    kept = corpus._merge([harvest], corpus._excluded_texts([tmp_path]))

    assert len(harvest.pairs) == 3
    assert [pair.source.partition("(")[0] for pair in kept.pairs] == ["fresh"]
    assert [document.text.partition("(")[0] for document in kept.documents] == ["fresh"]
    assert "torch" not in {name for _, name in corpus._packages([tmp_path])}


@pytest.mark.parametrize(
    ("written", "reference", "score"),
    [("the cat sat", "The cat sat.", 1.0), ("a b c d", "a c", 2 / 3), ("x", "y", 0.0), ("", "y", 0.0)],
)
def test_rouge_l(written: str, reference: str, score: float) -> None:
    """F1 of the longest common subsequence of words."""
    assert pack.rouge_l(written, reference) == pytest.approx(score)
