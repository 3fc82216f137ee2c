"""PEFT folders, ours and others': the model is PEFT's own to the last token, and what it cannot be is refused."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from braid_common.base.t5_config import T5Config
from braid_common.text_form import TextForm
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean.generate import Writer
from edge_client.engines.lean.model.adapter_tensors import read_any_adapter
from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.model.peft_folder import LoraConfig, is_target, read_peft
from edge_client.engines.lean.model.t5 import Cache
from edge_client.errors import ConfigError
from quantize.base import load_base
from tests.fakes.engine.peft_reference import MARKS, MAX_NEW_TOKENS, TEXTS, asked, exported, of_peft, same, start
from wire.manifest import t5_weights

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

pytestmark = MARKS

FOUND_IS_ENOUGH = (Phase.explicit, Phase.reuse, Phase.generate)
"""No search for a smaller example: one takes a second, and the search takes hundreds."""

UNEQUAL_RANKS = st.lists(st.integers(1, 6), min_size=4, max_size=4, unique=True)
ALPHAS = st.lists(st.integers(1, 12), min_size=4, max_size=4, unique=True)
DISJOINT = ("q", r"decoder\.block\.\d+\.layer\.1\.EncDecAttention\.v", "encoder.block.1.layer.1.DenseReluDense.wo")
"""A suffix, a regular expression and a whole name, as people write them into rank_pattern."""

OVERLAPPING = (*DISJOINT, r"^decoder.*\.q", "SelfAttention.q", "block.1.layer.1.DenseReluDense.wo")
"""The first that matches a module counts."""


@settings(max_examples=5, phases=FOUND_IS_ENOUGH)
@given(UNEQUAL_RANKS, st.integers(0, 1000))
def test_exported_ranks_are_read_as_peft_reads_them(
    reference: T5ForConditionalGeneration, base_folder: Path, ranks: list[int], seed: int
) -> None:
    """What `aggregator export` wrote, with other ranks from weight to weight, some zero."""
    weights = t5_weights(T5Config.parse(reference.config.to_dict()), "all")
    with tempfile.TemporaryDirectory() as place:
        folder = exported(weights, [0, *ranks], np.random.default_rng(seed), Path(place) / "out")

        assert_writes_as_peft(reference, base_folder, folder)


@settings(max_examples=10, phases=FOUND_IS_ENOUGH)
@given(
    UNEQUAL_RANKS,
    st.tuples(ALPHAS, st.permutations(OVERLAPPING)),
    st.booleans(),
    st.sampled_from([["q", "v", "wo"], r".*\.(q|v|wo)", ["decoder.block.0.layer.0.SelfAttention.q", "wi_1", "k"]]),
    st.integers(0, 1000),
)
def test_folders_of_peft_are_read_as_peft_reads_them(
    reference: T5ForConditionalGeneration,
    base_folder: Path,
    ranks: list[int],
    patterns: tuple[list[int], list[str]],
    use_rslora: bool,
    targets: list[str] | str,
    seed: int,
) -> None:
    """What `save_pretrained` wrote: rank_pattern and alpha_pattern of any spelling, α/r or α/√r."""
    from peft import LoraConfig, get_peft_model

    alphas, alpha_patterns = patterns
    config = LoraConfig(
        r=ranks[0],
        lora_alpha=alphas[0],
        rank_pattern=dict(zip(DISJOINT, ranks[1:], strict=True)),
        target_modules=targets,
        use_rslora=use_rslora,
    )
    peft = get_peft_model(copy.deepcopy(reference), config)
    generator = torch.Generator().manual_seed(seed)
    for key, value in peft.named_parameters():
        if ".lora_" in key:
            value.data.normal_(0, 0.2, generator=generator)
    with tempfile.TemporaryDirectory() as place:
        peft.save_pretrained(place)
        path = Path(place) / "adapter_config.json"  # peft sorts patterns when it saves, not when it loads
        alpha_pattern = dict(zip(alpha_patterns, [*alphas, 7, 9], strict=True))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"alpha_pattern": alpha_pattern}))

        assert_writes_as_peft(reference, base_folder, Path(place))


def assert_writes_as_peft(reference: T5ForConditionalGeneration, base_folder: Path, folder: Path) -> None:
    """First logits to rounding and greedy texts exactly, of the base with the folder's adapter, here and in PEFT."""
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(copy.deepcopy(reference), str(folder)).eval()
    tokeniser = Tokeniser(base_folder, 1, reference.config.vocab_size)
    expected, answers = of_peft(theirs, base_folder)
    source, mask = asked(base_folder, reference.config.vocab_size)

    logits = first_logits(base_folder, folder, source, mask)
    texts = Writer(base_folder, folder, form=TextForm(max_target_tokens=MAX_NEW_TOKENS), spare_bytes=1 << 30).write(
        TEXTS
    )

    assert texts == [tokeniser.decode(answer) for answer in answers]
    assert same(logits, expected)
    bare = reference(input_ids=source, attention_mask=mask.long(), decoder_input_ids=start()).logits[:, 0]
    assert float((logits - bare).abs().max()) > 0.01 * float(expected.abs().max())


def first_logits(base_folder: Path, folder: Path, source: Tensor, mask: Tensor) -> Tensor:
    base = load_base(base_folder, "fp32")
    model = Model(base, read_any_adapter(folder, base.weights), "fp32")
    return model.next_logits(start(), model.encode(source, mask), mask, Cache())


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q", "SelfAttention.v", "decoder.block.1.layer.2.DenseReluDense.wo"]},
        {"target_modules": r"decoder\..*\.(q|wo)"},
        {"target_modules": ["q", "v"], "exclude_modules": ["EncDecAttention.q", "v"]},
        {"target_modules": ["q", "v"], "exclude_modules": r"encoder\..*"},
        {"target_modules": ["q", "wo"], "layers_to_transform": 1},
        {"target_modules": ["q", "wo"], "layers_to_transform": [0, 2], "layers_pattern": "block"},
        {"target_modules": ["q", "wo"], "layers_to_transform": [0, 2], "layers_pattern": ["h", "layer"]},
        {"target_modules": ["decoder.block.0.layer.0.SelfAttention.q", "v"], "layers_to_transform": [1]},
    ],
)
def test_targets_are_those_of_peft(reference: T5ForConditionalGeneration, settings: dict[str, Any]) -> None:
    """The modules that PEFT's own function chooses: by end, regular expression, exclusion and layer."""
    import peft
    from peft.tuners.tuners_utils import check_target_module_exists

    names = [weight.name for weight in t5_weights(T5Config.parse(reference.config.to_dict()), "all")]
    theirs = {name for name in names if check_target_module_exists(peft.LoraConfig(**settings), name)}

    ours = {name for name in names if is_target(name, LoraConfig(**settings))}

    assert ours == theirs
    assert 0 < len(ours) < len(names)


Q, V = "decoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.0.SelfAttention.v"


def write_folder(folder: Path, settings: dict[str, Any], tensors: dict[str, Tensor | None]) -> Path:
    """A plain adapter of rank 2 on Q, with these settings and tensors changed, or left out where None."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q"]}
    parts: dict[str, Tensor | None] = {f"{Q}.lora_A.weight": torch.ones(2, 5), f"{Q}.lora_B.weight": torch.ones(7, 2)}
    kept = {f"base_model.model.{key}": value for key, value in (parts | tensors).items() if value is not None}
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    save_file(kept, folder / "adapter_model.safetensors")
    return folder


def test_settings_that_change_nothing_are_accepted(tmp_path: Path) -> None:
    """Training's own settings, keys of later versions, and switches that are off."""
    harmless = {"use_dora": False, "modules_to_save": None, "lora_dropout": 0.1, "qalora_group_size": 16, "new": [1]}

    (factors,) = read_peft(write_folder(tmp_path, harmless, {}), [Q, V]).values()

    assert torch.equal(factors.b @ factors.a, torch.full((7, 5), 3.0))


@pytest.mark.parametrize(
    ("settings", "tensors", "words"),
    [
        ({"use_dora": True}, {}, "sets use_dora"),
        ({"modules_to_save": ["lm_head"]}, {}, "sets modules_to_save"),
        ({"fan_in_fan_out": True}, {}, "sets fan_in_fan_out"),
        ({"bias": "lora_only"}, {}, "biases"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "changes its base"),
        ({"peft_type": "IA3"}, {}, "IA3"),
        ({"lora_alpha": "much"}, {}, "damaged"),
        ({"r": 0}, {}, "damaged"),
        ({"rank_pattern": {"SelfAttention.q": 3}}, {}, "not floats of its rank 3"),
        ({"alpha_pattern": {"(q": 3}}, {}, "no regular expression"),
        ({"target_modules": ["v"]}, {}, "does not target"),
        ({"target_modules": None}, {}, "does not target"),
        ({"target_modules": ["q", "v"]}, {}, f"targets {V}, but"),
        ({}, {f"{Q}.lora_A.weight": None}, "lora_A of .* is missing"),
        ({}, {f"{Q}.lora_B.weight": None}, "lora_B of .* is missing"),
        ({}, {f"{Q}.lora_magnitude_vector": torch.ones(7)}, "no LoRA factor"),
        ({}, {"shared.lora_embedding_A": torch.ones(2, 9)}, "no LoRA factor"),
        ({}, {f"{Q}.lora_B.weight": torch.ones(2, 7)}, "not floats of its rank 2"),
        ({}, {f"{Q}.lora_A.weight": torch.ones(2, 5, dtype=torch.int8)}, "not floats of its rank 2"),
        ({}, {f"{V}.lora_A.weight": torch.ones(2, 5), f"{V}.lora_B.weight": torch.ones(7, 2)}, "does not target"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    tmp_path: Path, settings: dict[str, Any], tensors: dict[str, Tensor | None], words: str
) -> None:
    """One sentence that says what is wrong, and one that says what to do."""
    folder = write_folder(tmp_path, settings, tensors)

    with pytest.raises(ConfigError, match=words) as caught:
        read_peft(folder, [Q, V])

    assert caught.value.hint
