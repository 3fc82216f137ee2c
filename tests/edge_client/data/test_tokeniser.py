"""Text to ids: what is cut, what never is, and that a window of a long text has the tokens of the whole."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import builtin_base
from braid_common.example import Example
from braid_common.text_form import DEFAULT_PREFIX, Cut, TextForm
from edge_client.data.tokeniser import Tokeniser
from edge_client.errors import ConfigError

EOS = 1
FOLDERS = {
    "builtin": Path(builtin_base.folder()),
    "T5's own": Path(__file__).parents[4] / "shared" / "tokenizer",
}
CUTS: tuple[Cut, ...] = ("start", "end", "middle")

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=40
)
SPACES = st.sampled_from([" ", "\n", "  ", "\t", " " * 400, "\n\n\n"])
TEXTS = st.lists(st.tuples(WORDS | st.sampled_from(["pump", "3", "pressure,", "worn-out"]), SPACES), max_size=60).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)
PREFIXES = st.sampled_from(["", DEFAULT_PREFIX, "Q:", "Summarise this.\n", "  two words\t"])


@pytest.fixture(scope="module", params=sorted(FOLDERS))
def tokenizer_folder(request: pytest.FixtureRequest) -> Path:
    """A folder with a tokenizer.json."""
    folder = FOLDERS[request.param]
    if not (folder / "tokenizer.json").exists():
        pytest.skip(f"there is no {folder}/tokenizer.json beside this checkout")
    return folder


@cache
def tokeniser_of(folder: Path) -> tuple[Tokeniser, Tokenizer]:
    return Tokeniser(folder, EOS, 32_128), Tokenizer.from_file(str(folder / "tokenizer.json"))


def slow_source(tokenizer: Tokenizer, text: str, form: TextForm) -> tuple[int, ...]:
    """The reference: everything is tokenised, then cut."""
    encoding = tokenizer.encode(form.prefix + text, add_special_tokens=False)
    ids, limit = encoding.ids, form.max_source_tokens - 1
    if len(ids) <= limit:
        return (*ids, EOS)
    n_prefix = sum(start < len(form.prefix.rstrip()) for start, _ in encoding.offsets)
    of_text, room = ids[n_prefix:], limit - n_prefix
    back = {"end": 0, "start": room, "middle": room // 2}[form.truncate_source]
    kept = of_text[: room - back] + of_text[len(of_text) - back :]
    return (*ids[:n_prefix], *kept, EOS)


@pytest.mark.parametrize("cut", CUTS)
@given(text=TEXTS, prefix=PREFIXES, most=st.integers(12, 64))
@example(text="a " + " " * 10_000 + "b " * 30, prefix=DEFAULT_PREFIX, most=16)
def test_sources_are_cut_as_if_all_had_been_tokenised(
    tokenizer_folder: Path, cut: Cut, text: str, prefix: str, most: int
) -> None:
    """Only a window of a long text is read, from the side that is kept; the ids are those of the whole text."""
    tokeniser, tokenizer = tokeniser_of(tokenizer_folder)
    form = TextForm(prefix, most, 8, cut)

    ids = tokeniser.source(text, form)

    assert ids == slow_source(tokenizer, text, form)
    assert len(ids) <= most and ids[-1] == EOS


@pytest.mark.parametrize("cut", CUTS)
def test_a_megabyte_without_a_space_is_cut_all_the_same(tokenizer_folder: Path, cut: Cut) -> None:
    """Such a text has no words: any window of it will do, of the length that is asked for."""
    tokeniser, _ = tokeniser_of(tokenizer_folder)

    ids = tokeniser.source("x" * 1_000_000, TextForm(DEFAULT_PREFIX, 64, 8, cut))

    assert len(ids) == 64 and ids[-1] == EOS and tokeniser.decode(ids).startswith("summarize:")


@given(text=TEXTS, most=st.integers(2, 64))
def test_only_a_whole_target_ends_in_eos(tokenizer_folder: Path, text: str, most: int) -> None:
    """A target of exactly the limit, eos included, is whole; one token more, and its first ones are all there is."""
    tokeniser, tokenizer = tokeniser_of(tokenizer_folder)
    whole = tokenizer.encode(text, add_special_tokens=False).ids

    for limit in (most, max(2, len(whole)), len(whole) + 1):
        ids = tokeniser.target(text, limit)
        assert ids == ((*whole, EOS) if len(whole) + 1 <= limit else tuple(whole[:limit]))
    assert tokeniser.count(text, most) == min(len(whole) + 1, most)


def test_cutting_at_the_end_gives_the_ids_that_it_always_gave(tokenizer_folder: Path) -> None:
    """Under the default cut, runs of before train on the same sources to the last id."""
    tokeniser, tokenizer = tokeniser_of(tokenizer_folder)
    form = TextForm(max_source_tokens=32, max_target_tokens=8)
    texts = [(FOLDERS["builtin"] / "README.md").read_text(), "Pump 3 lost pressure at night.", ""]

    for text in texts:
        before = tokenizer.encode((form.prefix + text)[: 32 * 16], add_special_tokens=False).ids[:31]
        assert tokeniser.source(text, form) == (*before, EOS)


@pytest.mark.parametrize("cut", CUTS)
def test_a_prefix_that_leaves_no_room_is_one_error(tokenizer_folder: Path, cut: Cut) -> None:
    """Nothing of a prefix is cut to make room; the error names what to change in run.toml."""
    tokeniser, _ = tokeniser_of(tokenizer_folder)
    form = TextForm("Write a short summary of what the technician did that day: ", 8, 8, cut)

    with pytest.raises(ConfigError, match="leaves no room") as caught:
        tokeniser.source("Pump 3 lost pressure at night.", form)

    assert "train.max_source_tokens" in caught.value.hint and "train.prefix" in caught.value.hint


def test_a_dialogue_keeps_the_side_that_it_needs(tokenizer_folder: Path) -> None:
    """What is left reads as one expects: prefix first, then the end, the beginning, or both."""
    tokeniser, _ = tokeniser_of(tokenizer_folder)
    dialogue = " ".join(f"turn {i}." for i in range(200))

    def kept(cut: Cut) -> str:
        pair = tokeniser.pair(Example("id", "group", dialogue, "done"), TextForm("dialogue: ", 40, 8, cut))
        return tokeniser.decode(pair.source)

    assert all(kept(cut).startswith("dialogue: ") for cut in CUTS)
    assert kept("end").startswith("dialogue: turn 0.") and "turn 199." not in kept("end")
    assert kept("start").endswith("turn 199.") and "turn 0." not in kept("start")
    assert kept("middle").startswith("dialogue: turn 0.") and kept("middle").endswith("turn 199.")
