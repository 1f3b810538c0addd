"""Proofs by SAT, with no solver beside Yosys: a miter whose output `ok` is 1 for every value of its inputs.

A miter is a component that holds a design and its definition and compares them. It is combinational, or a pipeline
without feedback whose registers are made transparent: its outputs are then what they become when the inputs hold
still. That it delivers them in the right cycle is for the benches to show.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Final

from amaranth.back import rtlil
from amaranth.lib import wiring

from sparsefab.errors import MissingToolError, VerificationError

__all__ = ["Proof", "prove"]

_CHILD: Final = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for step in sys.stdin.read().splitlines():
    design.run_pass(f"tee -q -a {sys.argv[1]} " + step)
"""

_TRANSPARENT: Final = """
(* techmap_celltype = "$dff" *)
module sparsefab_transparent(CLK, D, Q);
  parameter WIDTH = 1;
  parameter CLK_POLARITY = 1;
  input CLK;
  input [WIDTH-1:0] D;
  output [WIDTH-1:0] Q;
  assign Q = D;
endmodule
"""

_MUTATE: Final = "mutate -list 1 -seed {seed} -mode inv -o {file} top.dut top.dut.*"

_SHOWN: Final = re.compile(r"^\s+\\?(\S+)\s+(-?\d+)\s+[0-9a-f]+\s+[01x]+\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The outcome: proved, refuted by `counterexample` {input: value}, or undecided when the time was up."""

    proved: bool
    counterexample: dict[str, int] = field(default_factory=dict)
    seconds: float

    @property
    def decided(self) -> bool:
        """Whether the solver came to an end."""
        return self.proved or bool(self.counterexample)


def prove(
    miter: wiring.Component,
    *,
    timeout_s: float = 120.0,
    fault: int | None = None,
    cases: Mapping[str, Sequence[int]] | None = None,
) -> Proof:
    """Decide whether `ok` is 1 for all values of a miter's inputs.

    Parameters
    ----------
    miter : wiring.Component   Has an output `ok` of one bit; every input is a free variable, `rst` is 0.
    timeout_s : float          The solver gives up after that, in each case.
    fault : int | None         Seed of a fault injected into the submodule `dut`: one inverted bit of one cell.
    cases : {input: values}    Decide one value (or combination) after the other: a solver does not know multiplication
                               of two variables, by a constant it does. They should be all values of the input, for
                               what is not listed is not decided.

    Raises
    ------
    MissingToolError           If pyosys is not installed.
    ValueError                 If the miter has no `ok`.
    VerificationError          If Yosys fails, or registers feed back so that they cannot be made transparent.
    """
    if find_spec("pyosys") is None:
        raise MissingToolError("pyosys is needed for proofs: pip install pyosys==0.70")
    ports = {"__".join(map(str, path)): member for path, member, _ in miter.signature.flatten(miter)}
    if "ok" not in ports:
        raise ValueError(f"miter {type(miter).__name__} needs an output ok, has {', '.join(ports)}")
    inputs = [name for name, member in ports.items() if member.flow == wiring.In]
    settings = [
        " ".join(f"-set {name} {value}" for name, value in zip(cases or {}, values, strict=True))
        for values in product(*(cases or {}).values())
    ]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        design, registers, log, mutation = (
            Path(folder) / name for name in ("miter.il", "registers.v", "log.txt", "mutation.ys")
        )
        text = rtlil.convert(miter, name="top", emit_src=False)
        design.write_text(text)
        registers.write_text(_TRANSPARENT)
        fixed = "-set rst 0" if re.search(r"wire .*input \d+ +\\rst\s*$", text, re.MULTILINE) else ""
        shown, limit = f"-show {','.join(inputs)}", f"-timeout {max(1, round(timeout_s))}"
        steps = [
            f"read_rtlil {design}",
            "hierarchy -top top",
            "proc -norom",
            f"techmap -map {registers}",
            "setattr -unset init w:*",  # a net that was a register
            "opt_clean",
            # bits that nothing reads are no place for a fault
            *([] if fault is None else ["wreduce", "opt_expr", "opt_clean -purge"]),
            *([] if fault is None else [_MUTATE.format(seed=fault, file=mutation), f"script {mutation}"]),
            "flatten",
            "memory_map",
            "opt -full",
            "opt_clean -purge",  # what only names keep alive
            "check -assert",  # a register that holds its value is a loop now
            *(f"sat -verify -prove ok 1 {fixed} {case} {shown} {limit} top" for case in settings),
        ]
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, str(log)],
            input="\n".join(steps),
            capture_output=True,
            text=True,
            check=False,
        )
        said = log.read_text() if log.exists() else ""
        if child.returncode and "TIMEOUT" not in said and "FAIL!" not in said:
            lines = said.strip().splitlines() or child.stderr.strip().splitlines()
            raise VerificationError(f"Yosys cannot prove the miter: {lines[-1] if lines else child.returncode}")
    found = {name: int(value) for name, value in _SHOWN.findall(said)} if "FAIL!" in said else {}
    proved = said.count("SUCCESS!") == len(settings)
    return Proof(proved=proved, counterexample=found, seconds=time.perf_counter() - start)
