"""A claim about a block, and its verdict: the proof, and that injected faults refute it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from amaranth.lib import wiring

from sparsefab.hw.formal import Proof, prove

__all__ = ["Claim", "Verdict", "verify_claim"]

_FAULTS: Final = 3
_FAULT_TIMEOUT_S: Final = 20.0  # a fault that shows is found at once; one that parts two multipliers never is


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is claimed of a block; `miter` builds the comparison, with the design under test as its submodule `dut`.

    `cases` are inputs, or bits of them, whose values are decided one by one, as for `prove`.
    """

    block: str
    name: str
    miter: Callable[[], wiring.Component]
    cases: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The proof of a claim, and how many of the faults injected into the design refute it.

    A fault may be one that no input shows, in logic that this use of a primitive leaves idle.
    """

    proof: Proof
    injected: int
    caught: int


def verify_claim(claim: Claim, *, timeout_s: float = 120.0) -> Verdict:
    """Prove a claim, then refute it with each of a few faults injected."""
    proof = prove(claim.miter(), timeout_s=timeout_s, cases=claim.cases)
    refuted = [
        bool(prove(claim.miter(), timeout_s=_FAULT_TIMEOUT_S, cases=claim.cases, fault=seed).counterexample)
        for seed in range(_FAULTS)
    ]
    return Verdict(proof=proof, injected=_FAULTS, caught=sum(refuted))
