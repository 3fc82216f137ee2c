"""The methods that are compared, and which of them can share one fleet."""

from __future__ import annotations

from dataclasses import dataclass

from braid_common.metrics import Subject
from wire.run import Keep, Method, Personal, When

KEEP_WEIGHT = 0.1
"""λ of `train.keep` where it is on."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A method: the local strands of every board, by name of the method, and the weight of `train.keep`."""

    method: Method | None = None
    keep: float = 0.0

    def personal(self, *, rank: int, fleet_steps: int) -> Personal | None:
        """The setting of that name. Fine-tuning gets, at its end, as many steps as `fleet_steps`, those of the run."""
        if self.method is None:
            return None
        when: When = "after" if self.method == "fedrep" else "beside"
        steps = fleet_steps if self.method == "finetune" else 0
        return Personal(rank=rank, method=self.method, when=when, steps=steps, local_blocks=1)

    @property
    def subject(self) -> Subject:
        """The name under which the engine scores the model that this makes of a board's."""
        return "global" if self.method is None else "alone" if self.method == "local" else "personal"

    @property
    def has_own_steps(self) -> bool:
        """Whether local strands have steps to themselves."""
        return self.method not in (None, "pftt")

    @property
    def penalty(self) -> Keep | None:
        """The setting `train.keep` of that weight; None for none."""
        return Keep(weight=self.keep) if self.keep else None


FLEETS = {
    "global": {
        "global": Condition(),
        "local only": Condition("local"),
        "fine-tuned": Condition("finetune"),
        "Ditto": Condition("ditto"),
        "APFL": Condition("apfl"),
    },
    "FedRep": {"FedRep": Condition("fedrep")},
    "PFTT": {"PFTT": Condition("pftt")},
    "PFTT, keep": {"PFTT, keep": Condition("pftt", keep=KEEP_WEIGHT)},
}
"""The conditions of each fleet. Those of the first have steps of their own over a global adapter that they leave as it
is, so that one fleet's rounds serve them all."""

CONDITIONS = {name: condition for fleet in FLEETS.values() for name, condition in fleet.items()}
