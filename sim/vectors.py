"""Replay recorded DSP48E2 stimuli against the reference and against the Amaranth twin.

A vector file is an .npz: `params` is a JSON list of attribute dicts, one a configuration; `in_<port>` and `out_<port>`
are uint64[configurations, cycles]; `x_<port>` marks output bits that the recorded model left unknown. In each cycle
the inputs are set, the clock rises, and the outputs are sampled with the same inputs still applied.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Signal
from amaranth.sim import Simulator
from numpy.typing import NDArray

from sparsefab.errors import VerificationError
from sparsefab.hw.primitives.dsp48e2 import DSP48E2
from sparsefab.sim.reference.dsp48e2 import attribute_codes, simulate
from sparsefab.sim.reference.dsp48e2_ports import ATTRIBUTES, INPUTS, OUTPUTS

__all__ = [
    "ConfigurationReport",
    "VectorReport",
    "Vectors",
    "load_vectors",
    "random_attributes",
    "random_inputs",
    "simulate_twin",
    "verify_vectors",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Stimuli and outputs of several configurations.

    `inputs` int64[configurations, cycles, inputs], `outputs` and `known` (1 = compare this bit) likewise by outputs.
    """

    attributes: tuple[dict[str, int | str], ...]
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    known: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationReport:
    """How many sampled words of one configuration differ in a known bit, by port; ports that agree are absent."""

    configuration: int
    words: int
    reference_mismatches: dict[str, int]
    twin_mismatches: dict[str, int]
    first_cycle: int | None

    @property
    def mismatches(self) -> int:
        return sum(self.reference_mismatches.values()) + sum(self.twin_mismatches.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorReport:
    """The replay of one file."""

    path: str
    configurations: tuple[ConfigurationReport, ...]

    @property
    def words(self) -> int:
        return sum(c.words for c in self.configurations)

    @property
    def mismatches(self) -> int:
        return sum(c.mismatches for c in self.configurations)


def load_vectors(path: Path) -> Vectors:
    """Read a vector file.

    Raises
    ------
    VerificationError          If the file is not one, naming what is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = {name: archive[name] for name in archive.files}
        params = json.loads(str(data["params"]))
        shape = data["in_A"].shape
        _check_arrays(data, params, shape)
        for index, attributes in enumerate(params):
            try:
                attribute_codes(attributes)
            except ValueError as error:
                raise ValueError(f"configuration {index}: {error}") from error
    except (OSError, ValueError) as error:
        raise VerificationError(f"{path}: not a DSP48E2 vector file ({error})") from error
    except KeyError as error:
        raise VerificationError(f"{path}: not a DSP48E2 vector file, {error.args[0]} is missing") from error
    # a port that was not recorded rests (enables at 1), one that was not sampled is not compared
    resting = {name: np.full(shape, int(name.startswith("CE")), np.int64) for name in INPUTS}
    inputs = np.stack([data.get(f"in_{name}", resting[name]).astype(np.int64) for name in INPUTS], axis=-1)
    zeros = np.zeros(shape, np.int64)
    outputs = np.stack([data.get(f"out_{name}", zeros).astype(np.int64) for name in OUTPUTS], axis=-1)
    unknown = np.stack(
        [data.get(f"x_{name}", zeros).astype(np.int64) if f"out_{name}" in data else ~zeros for name in OUTPUTS],
        axis=-1,
    )
    return Vectors(attributes=tuple(params), inputs=inputs, outputs=outputs, known=~unknown)


def _check_arrays(data: dict[str, NDArray[Any]], params: object, shape: tuple[int, ...]) -> None:
    """Refuse ports that a DSP48E2 does not have, shapes that differ, and values wider than their port."""
    if not isinstance(params, list) or not all(isinstance(entry, dict) for entry in params):
        raise ValueError("params must be a list of attribute dicts")
    if len(shape) != 2 or shape[0] != len(params):
        raise ValueError(f"{len(params)} configurations in params, stimuli of shape {list(shape)}")
    widths = {f"in_{name}": width for name, width in INPUTS.items()}
    widths |= {f"{kind}_{name}": width for kind in ("out", "x") for name, width in OUTPUTS.items()}
    if not any(name.startswith("out_") for name in data):
        raise ValueError("no outputs to compare")
    for name, values in data.items():
        if name == "params":
            continue
        if name not in widths:
            raise ValueError(f"{name} is no port of a DSP48E2")
        if values.shape != shape or values.dtype.kind not in "ui":
            raise ValueError(f"{name} must be integers of shape {list(shape)}, not {values.dtype}{list(values.shape)}")
        if values.size and (int(values.min()) < 0 or int(values.max()) >> widths[name]):
            raise ValueError(f"{name} has values beyond its {widths[name]} bits")


def verify_vectors(path: Path) -> VectorReport:
    """Replay every configuration of a file on the reference and on the RTL twin.

    Parameters
    ----------
    path : Path                Vector file.

    Returns
    -------
    VectorReport
    """
    vectors = load_vectors(path)
    reports = []
    for index, attributes in enumerate(vectors.attributes):
        want, known = vectors.outputs[index], vectors.known[index]
        bad = [
            ((got ^ want) & known) != 0
            for got in (simulate(attributes, vectors.inputs[index]), simulate_twin(attributes, vectors.inputs[index]))
        ]
        cycles = np.flatnonzero((bad[0] | bad[1]).any(axis=1))
        reports.append(
            ConfigurationReport(
                configuration=index,
                words=int(want.size),
                reference_mismatches=_by_port(bad[0]),
                twin_mismatches=_by_port(bad[1]),
                first_cycle=int(cycles[0]) if cycles.size else None,
            )
        )
    return VectorReport(path=path.name, configurations=tuple(reports))


def random_attributes(random: np.random.Generator) -> dict[str, int | str]:
    """Draw a configuration that UG579 allows."""
    attributes: dict[str, int | str] = {
        name: choices[random.integers(len(choices))] if choices else int(random.integers(1 << 48))
        for name, (_, choices) in ATTRIBUTES.items()
    }
    attributes["PREG"] = 1  # feedback of P without its register is a combinational loop
    for letter in "AB":
        attributes[f"{letter}CASCREG"] = min(int(attributes[f"{letter}REG"]), 1)
    return attributes


def random_inputs(random: np.random.Generator, cycles: int) -> NDArray[np.int64]:
    """Draw int64[cycles, inputs]: enables mostly on, resets seldom, one cycle in three with small operands."""
    inputs = np.stack([random.integers(1 << width, size=cycles) for width in INPUTS.values()], axis=1)
    small = random.random(cycles) < 0.3  # small sums reach the pattern detector
    for column, name in enumerate(INPUTS):
        if name.startswith("CE"):
            inputs[:, column] = random.random(cycles) < 0.85
        if name.startswith("RST"):
            inputs[:, column] = random.random(cycles) < 0.05
        if name in ("A", "B", "C", "D", "PCIN"):
            inputs[small, column] &= 3
    return inputs


def simulate_twin(attributes: dict[str, int | str], inputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Run the Amaranth twin in Amaranth's simulator; arguments and result as `sim.reference.dsp48e2.simulate`."""
    m = Module()
    m.submodules.dsp = dsp = DSP48E2(attributes=attributes)
    stimulus, response = Signal(sum(INPUTS.values())), Signal(sum(OUTPUTS.values()))
    m.d.comb += [
        Cat(getattr(dsp, name) for name in INPUTS).eq(stimulus),
        response.eq(Cat(getattr(dsp, name) for name in OUTPUTS)),
    ]
    outputs = np.zeros((inputs.shape[0], len(OUTPUTS)), dtype=np.int64)

    async def bench(context: Any) -> None:
        for cycle, row in enumerate(inputs.tolist()):
            word = low = 0
            for value, width in zip(row, INPUTS.values(), strict=True):
                word |= value << low
                low += width
            context.set(stimulus, word)
            await context.tick()
            sampled = context.get(response)
            for index, width in enumerate(OUTPUTS.values()):
                outputs[cycle, index] = sampled & ((1 << width) - 1)
                sampled >>= width

    simulator = Simulator(m)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return outputs


def _by_port(bad: NDArray[np.bool_]) -> dict[str, int]:
    return {name: int(bad[:, index].sum()) for index, name in enumerate(OUTPUTS) if bad[:, index].any()}
