from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_client.engines.contract import Host, Stopped
from edge_client.engines.lean.encoder_cache.reader import EncoderOutputs
from edge_client.engines.lean.evaluate import held_out_examples, held_out_loss
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_adapter
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.personal.local_strands import OwnStrands, read_own
from edge_client.engines.lean.personal.mixture import Mixture
from edge_client.engines.lean.personal.own_steps import add_pull, train_own
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.errors import ConfigError
from edge_client.jobs.messages import Job, PersonalJob, TrainJob
from edge_client.state.personal_folder import strands_key
from quantize.weight import DenseWeight
from wire.run import Method, Personal

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


def own_job(make_job: Jobs, path: Path, method: Method, **changes: Any) -> PersonalJob:
    """A job of a board with strands of its own over an adapter that is not zero."""
    personal = Personal(rank=2, method=method, when="after", **{"learning_rate": 0.03, "steps": 6, **changes})
    settings = {"trains_a": True, "personal": personal}
    job = make_job("personal", personal_path=str(path), settings=settings, starts=True)
    assert isinstance(job, PersonalJob)
    return job


def kept(job: PersonalJob) -> OwnStrands:
    own = read_own(Path(job.personal_path), strands_key(job.run))
    assert own is not None
    return own


def size(own: OwnStrands) -> float:
    return sum(float((factors.b @ factors.a).norm() ** 2) for factors in own.strands.values())


def loss_of(job: PersonalJob, factors: dict[str, Factors]) -> float:
    """Held-out loss of the base with these factors frozen on it."""
    session = Session()
    model = Model(session.base(job), AdapterTensors(factors), "fp32")
    outputs, tokeniser = EncoderOutputs(job, session), session.tokeniser(job)
    pairs = [tokeniser.pair(example, job.run.settings.text_form) for example in held_out_examples(job, session)]
    return held_out_loss(model, outputs, job, session, pairs)[0]


def received(job: PersonalJob) -> dict[str, Factors]:
    return read_adapter(Path(job.adapter_path), job.run, job.spec.version, job.ranks).product_factors()


def test_dittos_term_has_the_gradient_of_the_squared_distance() -> None:
    """λ/2·‖B·A‖² by autograd in float64, beside gradients that were there."""
    draw = torch.Generator().manual_seed(1)
    b, a = (torch.randn(*shape, generator=draw).requires_grad_(True) for shape in ((6, 3), (3, 9)))
    exact_b, exact_a = (value.detach().double().requires_grad_(True) for value in (b, a))
    (0.35 * (exact_b @ exact_a).square().sum() + exact_b.sum() + 2 * exact_a.sum()).backward()
    b.grad, a.grad = torch.ones_like(b), torch.full_like(a, 2.0)

    add_pull({"b.w": b, "a.w": a}, 0.7)

    assert exact_b.grad is not None and exact_a.grad is not None
    assert torch.allclose(b.grad.double(), exact_b.grad, rtol=1e-5)
    assert torch.allclose(a.grad.double(), exact_a.grad, rtol=1e-5)
    assert float((b.grad - 1).abs().min()) > 0


def test_apfls_gradients_are_those_of_the_mixture() -> None:
    """B's, A's and α's, by autograd in float64 through the dense product α·B·A + (1 - α)·G."""
    draw = torch.Generator().manual_seed(2)
    x, weight, b, a, g_b, g_a, pull = (
        torch.randn(*shape, generator=draw) for shape in ((5, 8), (6, 8), (6, 2), (2, 8), (6, 3), (3, 8), (5, 6))
    )
    linear = Linear(DenseWeight(weight), torch.float32, basis=a, start_b=b, trains="both")
    linear.train()
    mixture = Mixture({"w": linear}, {"w": Factors(g_b, g_a)}, 0.3, 0.01)
    mixture.put_on()
    (linear(x) * pull).sum().backward()
    exact = [value.double().requires_grad_(True) for value in (b, a, torch.tensor(0.3))]
    db, da, mix = exact
    dense = weight.double() + mix * (db @ da) + (1 - mix) * (g_b.double() @ g_a.double())
    (x.double() @ dense.t() * pull.double()).sum().backward()

    steps: list[float] = []
    mixture._mix_adam.step = lambda n: steps.append(float(mixture._mix.grad)) or 0.0  # type: ignore[method-assign, arg-type, func-returns-value]
    mixture.take_gradients(1)

    assert db.grad is not None and da.grad is not None and mix.grad is not None
    assert torch.allclose(mixture.leaves["b.w"].grad.double(), db.grad, atol=1e-4)  # type: ignore[union-attr]
    assert torch.allclose(mixture.leaves["a.w"].grad.double(), da.grad, atol=1e-4)  # type: ignore[union-attr]
    assert steps == [pytest.approx(float(mix.grad), rel=1e-4)]
    assert abs(steps[0]) > 0.1


@pytest.mark.parametrize("method", ["pftt", "local", "ditto", "fedrep", "apfl"])
def test_steps_of_their_own_teach_the_boards_model(make_job: Jobs, tmp_path: Path, method: Method) -> None:
    """Over a global adapter that stays as it is, the loss of the board's model falls from job to job; the model that
    the file makes with the global adapter is the one whose loss was told."""
    job = own_job(make_job, tmp_path / "strands", method, local_blocks=1, learning_rate=0.01)
    adapter = Path(job.adapter_path).read_bytes()

    first = train_own(job, Session())
    second = train_own(job, Session())

    assert second["loss"] < first["loss"]
    assert Path(job.adapter_path).read_bytes() == adapter
    own = kept(job)
    assert loss_of(job, own.over(received(job))) == pytest.approx(second["personal_loss"], rel=1e-4)
    assert own.is_alone == (method == "local")


def test_fine_tuning_begins_anew_each_time(make_job: Jobs, tmp_path: Path) -> None:
    """Strands of before do not count: the fleet's adapter is fine-tuned, and not what an earlier one became."""
    job = own_job(make_job, tmp_path / "strands", "finetune")

    train_own(job, Session())
    first = (tmp_path / "strands").read_bytes()
    train_own(job, Session())

    assert (tmp_path / "strands").read_bytes() == first


def test_dittos_term_keeps_the_board_near_the_fleet(make_job: Jobs, tmp_path: Path) -> None:
    """The larger λ, the nearer; without it the steps are fine-tuning's."""
    sizes = []
    for number, pull in enumerate((0.0, 1.0, 100.0)):
        job = own_job(make_job, tmp_path / str(number), "ditto", pull=pull)
        train_own(job, Session())
        sizes.append(size(kept(job)))
    job = own_job(make_job, tmp_path / "pftt", "pftt")
    train_own(job, Session())

    assert sizes[0] > 1.02 * sizes[1] > 1.02 * sizes[2]
    assert size(kept(job)) == sizes[0]


def test_apfl_learns_its_share(make_job: Jobs, tmp_path: Path) -> None:
    """α leaves where it began and goes on from there in the next job; the local model begins at the global adapter."""
    job = own_job(make_job, tmp_path / "strands", "apfl", mix=0.5, learning_rate=1e-12)
    train_own(job, Session())
    begun = kept(job)
    assert begun.mix == pytest.approx(0.5)
    for name, factors in received(job).items():
        rank = len(factors.a)
        if 0 < rank <= 2:
            product = begun.strands[name].b @ begun.strands[name].a
            assert torch.allclose(product, factors.b @ factors.a, atol=1e-5)
    (tmp_path / "strands").unlink()

    job = own_job(make_job, tmp_path / "strands", "apfl", mix=0.5)
    first = train_own(job, Session())["mix"]
    second = train_own(job, Session())["mix"]

    assert first != pytest.approx(0.5, abs=1e-3)
    assert abs(second - first) < 0.25  # it went on, and did not begin at 0.5 again
    assert 0 <= second <= 1 and kept(job).mix == second


def test_fedreps_head_lies_still_in_the_rounds_own_steps(make_job: Jobs, tmp_path: Path) -> None:
    """Local strands are in the last block alone; the steps of the shared ones pass through them and change nothing of
    them."""
    job = own_job(make_job, tmp_path / "strands", "fedrep", local_blocks=1)
    train_own(job, Session())
    assert {name.split(".")[2] for name in kept(job).strands} == {"2"}
    head = (tmp_path / "strands").read_bytes()
    updates = []
    for path in (str(tmp_path / "strands"), ""):
        round_job = make_job(
            trains="both", starts=True, personal_path=path, settings={"trains_a": True, "personal": _personal(job)}
        )
        assert isinstance(round_job, TrainJob)
        train(round_job, Session())
        updates.append(Path(round_job.result_path).read_bytes())

    assert (tmp_path / "strands").read_bytes() == head
    assert updates[0] != updates[1]


def _personal(job: PersonalJob) -> Personal:
    assert isinstance(job.run.settings.personal, Personal)
    return job.run.settings.personal


def test_a_board_that_is_stopped_keeps_the_steps_it_took(make_job: Jobs, tmp_path: Path) -> None:
    """SIGTERM after a step writes the strands and ends."""
    job = own_job(make_job, tmp_path / "strands", "pftt")

    with pytest.raises(Stopped):
        train_own(job, Session(Host(wants_stop=lambda: True)))

    assert size(kept(job)) > 0


def test_strands_that_diverge_leave_those_of_before(make_job: Jobs, tmp_path: Path) -> None:
    """A learning rate that is far too large costs the steps, and no strands."""
    train_own(own_job(make_job, tmp_path / "strands", "pftt"), Session())
    before = (tmp_path / "strands").read_bytes()

    with pytest.raises(ConfigError, match="local strands diverged"):
        train_own(own_job(make_job, tmp_path / "strands", "pftt", learning_rate=1e30), Session())

    assert (tmp_path / "strands").read_bytes() == before
