"""Local strands of one board: LoRA pairs that are trained on top of the global adapter, and never sent.

PFTT (arXiv 2404.13238): global adapters that are aggregated, and beside them a local LoRA that is not. The model of a
board is W + W_g + B_l·A_l with W_g as the server has it now: where W_g moves, the pair stays what it is, a difference,
and goes on from there. It is fp32 whatever the base's format, so that a plan in another one takes it up as it is.

The file is written when a round's steps are done, just before its result. A board that dies in between takes the
round's last steps' values from the saved training; where that is lost too, the round's steps are done once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braid_common.seeds import derive_seed
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.adapter_tensors import beside
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.private_basis import orthonormal_rows
from edge_client.engines.lean.session import trains_encoder
from edge_client.engines.lean.tensor_file import load_tensors, save_tensors
from edge_client.errors import ConfigError, disk_errors
from edge_client.jobs.messages import TrainJob
from edge_client.state.personal_folder import strands_key
from wire.run import Personal, RunInfo, Weight


class LocalStrands:
    """The local strands of one job, read or drawn, and put beside the global ones of `linears`.

    Where they have steps of their own they lie still in those of the global ones (FedRep's head).

    Attributes:
        is_lost: a file was there that is damaged, and strands begin anew.
    """

    def __init__(self, job: TrainJob, linears: Mapping[str, Linear]) -> None:
        self._path, self._key = Path(job.personal_path), strands_key(job.run)
        kept, self.is_lost = look_for_own(self._path, self._key)
        self._trains = not job.run.own_steps
        before = kept.strands if kept is not None else {}
        begun = start_strands(job.run, job.board_id, before, encoder=trains_encoder(job))
        self._others = {name: f for name, f in before.items() if name.startswith("encoder.") and name not in begun}
        for name, strands in begun.items():
            linears[name].put_beside(strands, trains=self._trains)
        self._linears = {name: linears[name] for name in begun}
        self._adam = Adam(dict(self._leaves()), learning_rate(job.run, job.spec.round))

    def use(self, *, is_wanted: bool) -> None:
        """Let the local strands count, or make the model what it is to every other board."""
        for linear in self._linears.values():
            linear.uses_beside = is_wanted

    def step(self, n_tokens: int) -> float:
        """Apply the gradients of a loss summed over `n_tokens`; their length. Nothing changes where it is not
        finite."""
        return self._adam.step(n_tokens) if self._linears and self._trains else 0.0

    def continue_from(self, n_steps: int) -> None:
        """Go on with the round's Adam behind so many steps of a saved training."""
        self._adam.n_steps = n_steps

    def tensors(self) -> dict[str, Tensor]:
        """The values themselves that a saved training holds of the local strands, by name."""
        groups = {"": dict(self._leaves()), "mean.": self._adam.means, "square.": self._adam.squares}
        return {f"local.{group}{name}": value for group, named in groups.items() for name, value in named.items()}

    def keep(self) -> None:
        """Write the strands as they are now. Raises DiskError, and ConfigError where they are not finite."""
        trained = {
            name: Factors(linear.beside.b.detach().cpu(), linear.beside.a.detach().cpu())
            for name, linear in self._linears.items()
            if linear.beside is not None
        }
        if self._trains:
            write_own(self._path, self._key, OwnStrands({**self._others, **trained}))

    def _leaves(self) -> Iterator[tuple[str, Tensor]]:
        if not self._trains:
            return
        for name, linear in self._linears.items():
            assert linear.beside is not None
            yield f"b.{name}", linear.beside.b
            yield f"a.{name}", linear.beside.a


# --- the file --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnStrands:
    """Local strands as a board keeps them.

    Attributes:
        strands: b (m, l) and a (l, n) fp32 by weight.
        mix: their share α of the board's model, where that is learnt; None where they are added to the global adapter.
        is_alone: whether they are trained without a global adapter.
    """

    strands: Mapping[str, Factors]
    mix: float | None = None
    is_alone: bool = False

    def over(self, received: Mapping[str, Factors]) -> dict[str, Factors]:
        """The factors of the board's whole model over a global adapter, by weight."""
        if self.is_alone:
            return dict(self.strands)
        whole = dict(received)
        for name, factors in self.strands.items():
            parts = [factors] if self.mix is None else [Factors(factors.b * self.mix, factors.a)]
            if name in received:
                of_all = received[name]
                parts.insert(0, of_all if self.mix is None else Factors(of_all.b * (1 - self.mix), of_all.a))
            whole[name] = parts[0] if len(parts) == 1 else beside(*parts)
        return whole


def read_own(path: Path, key: str) -> OwnStrands | None:
    """The local strands in a file; None where there are none, or they are damaged or belong to something else."""
    saved = load_tensors(path, key)
    if saved is None:
        return None
    tensors = saved.read_all()
    names = [name.removeprefix("b.") for name in tensors if name.startswith("b.")]
    strands = {name: Factors(tensors[f"b.{name}"].clone(), tensors[f"a.{name}"].clone()) for name in names}
    return OwnStrands(strands, saved.numbers.get("mix"), is_alone="alone" in saved.numbers)


def look_for_own(path: Path, key: str) -> tuple[OwnStrands | None, bool]:
    """The local strands in a file as `read_own`, and whether there is one that cannot be used."""
    own = read_own(path, key)
    return own, own is None and path.exists()


def write_own(path: Path, key: str, own: OwnStrands) -> None:
    """Replace the file at once and for good. Raises DiskError, and ConfigError where a value is not finite, with the
    file left as it was."""
    for name, factors in own.strands.items():
        if not (torch.isfinite(factors.b).all() and torch.isfinite(factors.a).all()):
            raise ConfigError(
                f"the local strands of {name} are not finite", "lower personal.learning_rate; the last good ones stay"
            )
    with disk_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    numbers = {} if own.mix is None else {"mix": own.mix}
    numbers |= {"alone": 1.0} if own.is_alone else {}
    tensors = {f"b.{name}": factors.b for name, factors in own.strands.items()}
    save_tensors(path, key, tensors | {f"a.{name}": factors.a for name, factors in own.strands.items()}, numbers)


# --- where strands begin ---------------------------------------------------------------------------------------------


def start_strands(run: RunInfo, board_id: str, before: Mapping[str, Factors], *, encoder: bool) -> dict[str, Factors]:
    """The strands that a job begins with, at the run's ranks: those of before, else drawn ones with a B of zero.

    `encoder`: whether the encoder is trained; otherwise it has none.
    """
    return {
        weight.name: _at_rank(
            before.get(weight.name), weight, rank, derive_seed(run.settings.seed, "local", board_id, weight.name)
        )
        for weight, rank in zip(run.weights, run.local_ranks, strict=True)
        if rank and (encoder or not weight.is_encoder)
    }


def learning_rate(run: RunInfo, round_id: int) -> float:
    """The step size of local strands in a round: their own, which stays, else that of the global ones."""
    personal = run.settings.personal
    own = personal.learning_rate if isinstance(personal, Personal) else 0.0
    return own or run.learning_rate_in(round_id)


def _at_rank(kept: Factors | None, weight: Weight, rank: int, seed: int) -> Factors:
    """The strands that are there, at a rank: the nearest product of it where they are more, and where they are fewer
    with drawn rows behind them, whose B is zero, so that the product stays what it is."""
    if kept is None or not len(kept.a):
        return Factors(torch.zeros(weight.rows, rank), _drawn(weight, rank, seed))
    if len(kept.a) > rank:
        return _nearest(kept, rank)
    more = rank - len(kept.a)
    b = torch.nn.functional.pad(kept.b, (0, more))
    return Factors(b, torch.cat([kept.a, _drawn(weight, rank, seed)[:more]]))


def _drawn(weight: Weight, rank: int, seed: int) -> Tensor:
    return torch.from_numpy(orthonormal_rows(np.random.default_rng(seed), rank, weight.columns))


def _nearest(strands: Factors, rank: int) -> Factors:
    """The product of this rank that is nearest to b·a in Frobenius norm (Eckart and Young), its weight in both
    factors alike."""
    q_b, r_b = torch.linalg.qr(strands.b.double())
    q_a, r_a = torch.linalg.qr(strands.a.double().t())
    u, sizes, v = torch.linalg.svd(r_b @ r_a.t())
    roots = sizes[:rank].sqrt()
    return Factors((q_b @ u[:, :rank] * roots).float(), ((q_a @ v[:rank].t()) * roots).t().float().contiguous())
