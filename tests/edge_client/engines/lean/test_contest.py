"""A contest's answers: losses and texts are those of transformers with PEFT, whatever stands beside them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from aggregator.export import Origin, export_peft
from aggregator.merge.state import AdapterState, WeightState
from braid_common.base.t5_config import T5Config
from braid_common.example import Example
from braid_common.text_form import TextForm
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean import contest as contest_module
from edge_client.engines.lean.contest import Contest, example_bytes
from edge_client.engines.lean.model.model import Model
from edge_client.errors import ConfigError, NoPlanError
from edge_client.evaluation.answers import Answered
from wire.manifest import t5_weights

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft's own call
]

FORM = TextForm(prefix="w9 ", max_source_tokens=12, max_target_tokens=6)
PLENTY = 1 << 30


@pytest.fixture(scope="module")
def examples(data_path: Path) -> list[Example]:
    """40 texts of unequal length, some beyond the form's limits."""
    records = map(json.loads, data_path.read_text().splitlines())
    return [Example(f"{i}", "", one["source"], one["target"]) for i, one in enumerate(records)]


@pytest.fixture(scope="module")
def adapters(reference: T5ForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    """The base, an adapter on both halves, and one on the decoder alone; random ranks, unequal, zero among them."""
    folder = tmp_path_factory.mktemp("adapters")
    config = T5Config.parse(reference.config.to_dict())
    found: dict[str, Path | None] = {"base": None}
    for name, scope, ranks in (("both", "all", (0, 3, 1, 5)), ("decoder", "decoder", (2, 0, 4))):
        rng = np.random.default_rng(len(name))
        states = {
            weight.name: WeightState(
                frozen_b=(0.3 * rng.standard_normal((weight.rows, ranks[i % len(ranks)]))).astype(np.float32),
                frozen_a=(0.3 * rng.standard_normal((ranks[i % len(ranks)], weight.columns))).astype(np.float32),
                basis=np.zeros((0, weight.columns), np.float32),
                values=np.zeros(0),
            )
            for i, weight in enumerate(t5_weights(config, scope))
        }
        found[name] = export_peft(AdapterState(version=1, weights=states), folder / name, Origin("any")).folder
    return found


@pytest.fixture(scope="module")
def answered(base_folder: Path, adapters: Mapping[str, Path | None], examples: list[Example]) -> list[Answered]:
    torch.set_num_threads(1)
    return Contest(base_folder, adapters, form=FORM, spare_bytes=PLENTY).answers(examples)


@pytest.mark.parametrize(("place", "name"), list(enumerate(["base", "both", "decoder"])))
def test_answers_are_those_of_transformers_and_peft(
    place: int,
    name: str,
    reference: T5ForConditionalGeneration,
    base_folder: Path,
    adapters: Mapping[str, Path | None],
    answered: list[Answered],
) -> None:
    """Loss per text to rounding, greedy texts exactly, of each contestant of one pass, text by text without padding."""
    from peft import PeftModel

    theirs = copy.deepcopy(reference)
    if adapters[name] is not None:
        theirs = PeftModel.from_pretrained(theirs, str(adapters[name])).eval()
    tokeniser = Tokeniser(base_folder, 1, reference.config.vocab_size)
    for one in answered[:12]:
        pair = tokeniser.pair(one.example, FORM)
        source, labels = torch.tensor([pair.source]), torch.tensor([pair.target])
        loss = float(theirs(input_ids=source, labels=labels).loss) * len(pair.target)
        written = theirs.generate(
            input_ids=source, use_cache=False, max_new_tokens=FORM.max_target_tokens, do_sample=False, num_beams=1
        )[0].tolist()

        assert one.n_target_tokens == len(pair.target)
        assert one.answers[place].loss == pytest.approx(loss, rel=2e-5)
        text = tokeniser.decode(written[1 : written.index(1) if 1 in written else len(written)])
        assert one.answers[place].text == text


def test_contestants_differ_and_examples_keep_their_order(answered: list[Answered], examples: list[Example]) -> None:
    assert [one.example for one in answered] == examples
    losses = [sum(one.answers[place].loss for one in answered) for place in range(3)]
    assert min(abs(a - b) for i, a in enumerate(losses) for b in losses[:i]) > 1


def test_cut_texts_are_told(answered: list[Answered]) -> None:
    """Twelve tokens hold the prefix, ten words and eos; six hold each target."""
    for one in answered:
        assert one.source_is_cut == (len(one.example.source.split()) > 10)
        assert not one.target_is_cut
        assert one.writable_targets == one.example.targets
    assert 0 < sum(one.source_is_cut for one in answered) < len(answered)


def test_memory_decides_the_batches_and_nothing_else(
    base_folder: Path, adapters: Mapping[str, Path | None], examples: list[Example], answered: list[Answered]
) -> None:
    """With room for one text at a time the texts are the same, and the losses to rounding; progress is even."""
    heard: list[int] = []

    alone = Contest(base_folder, adapters, form=FORM, spare_bytes=1).answers(examples[:10], heard.append)

    assert heard == [3 * i for i in range(11)]
    for one, other in zip(alone, answered[:10], strict=True):
        assert [a.text for a in one.answers] == [a.text for a in other.answers]
        assert [a.loss for a in one.answers] == pytest.approx([a.loss for a in other.answers], rel=1e-5)


def test_the_encoder_runs_once_for_all_that_leave_it_alone(
    base_folder: Path,
    adapters: Mapping[str, Path | None],
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Per batch once for the base and the decoder's adapter together, and once for the adapter that changes it."""
    encode, calls = Model.encode, []

    def counted(self: Model, *arguments: object) -> torch.Tensor:
        calls.append(arguments)
        return encode(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "encode", counted)
    both = {"base": None, "decoder": adapters["decoder"], "again": adapters["decoder"]}

    Contest(base_folder, both, form=FORM, spare_bytes=PLENTY).answers(examples[:8])
    assert len(calls) == 1
    Contest(base_folder, {**both, "both": adapters["both"]}, form=FORM, spare_bytes=PLENTY).answers(examples[:8])
    assert len(calls) == 1 + 2


@pytest.mark.parametrize("format", ["int8", "nf4"])
def test_packed_bases_answer_with_every_contestant(
    format: str, base_folder: Path, adapters: Mapping[str, Path | None], examples: list[Example]
) -> None:
    """Whether the decoder's weights stay unpacked while all contestants write changes speed only."""
    kept, anew = (
        Contest(base_folder, adapters, format=format, form=FORM, spare_bytes=spare).answers(examples[:6])  # type: ignore[arg-type]
        for spare in (PLENTY, 1)
    )

    for one, other in zip(kept, anew, strict=True):
        assert [a.text for a in one.answers] == [a.text for a in other.answers]
        assert [a.loss for a in one.answers] == pytest.approx([a.loss for a in other.answers], rel=1e-5)


def test_an_adapter_that_does_not_fit_is_named(
    base_folder: Path, adapters: Mapping[str, Path | None], tmp_path: Path
) -> None:
    """Of another base, or broken so that its loss is none: the sentence begins with the contestant's name."""
    folder = adapters["decoder"]
    assert folder is not None
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
    tensors = load_file(folder / "adapter_model.safetensors")

    narrow = {name: value[:, :-1] if "lora_A" in name else value for name, value in tensors.items()}
    save_file({name: value.contiguous() for name, value in narrow.items()}, changed / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"^mine: the adapter's factors of .* do not fit"):
        Contest(base_folder, {"base": None, "mine": changed}, form=FORM, spare_bytes=PLENTY)

    save_file({name: value * float("nan") for name, value in tensors.items()}, changed / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match="loss of mine is not finite"):
        Contest(base_folder, {"base": None, "mine": changed}, form=FORM, spare_bytes=PLENTY).answers(
            [Example("", "", "w1 w2", "w3")]
        )


def test_a_base_without_room_is_refused_before_it_is_read(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tiny:
        memory_bytes = 1000

    monkeypatch.setattr(contest_module, "probe_board", Tiny)

    with pytest.raises(NoPlanError, match="free are 1000 B") as caught:
        Contest(base_folder, {"base": None}, form=FORM)

    assert caught.value.needed_bytes > 1000 and "--format" in caught.value.hint


@pytest.fixture
def sizes(reference: T5ForConditionalGeneration) -> Iterator[T5Config]:
    yield T5Config.parse(reference.config.to_dict())


def test_longer_texts_take_more_memory(sizes: T5Config) -> None:
    """Sources count as they are padded; every other size counts as it is."""
    assert example_bytes(sizes, 33, 8) == example_bytes(sizes, 64, 8) > example_bytes(sizes, 32, 8)
    assert example_bytes(sizes, 32, 64) > example_bytes(sizes, 32, 8)
