"""The DSP48E2's reference against arithmetic, its twin against the reference, both against recorded vectors."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsefab.errors import VerificationError
from sparsefab.sim.reference.dsp48e2 import attribute_codes, simulate
from sparsefab.sim.reference.dsp48e2_ports import ATTRIBUTES, INPUTS, OUTPUTS
from sparsefab.sim.vectors import load_vectors, random_attributes, random_inputs, simulate_twin, verify_vectors

_PORT = {name: index for index, name in enumerate(INPUTS)}
_OUT = {name: index for index, name in enumerate(OUTPUTS)}
_MASK48 = (1 << 48) - 1


def _inputs(cycles: int, **values: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Ports at rest (enables on), but for the given ones."""
    inputs = np.zeros((cycles, len(INPUTS)), np.int64)
    inputs[:, [index for name, index in _PORT.items() if name.startswith("CE")]] = 1
    for name, value in values.items():
        inputs[:, _PORT[name]] = value
    return inputs


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1))
def test_twin_equals_reference(seed: int) -> None:
    random = np.random.default_rng(seed)
    attributes, inputs = random_attributes(random), random_inputs(random, 64)
    np.testing.assert_array_equal(simulate_twin(attributes, inputs), simulate(attributes, inputs))


@pytest.mark.parametrize(
    ("alumode", "expected"),
    [(0, lambda z, x: z + x), (3, lambda z, x: z - x), (1, lambda z, x: -z + x - 1), (2, lambda z, x: -(z + x) - 1)],
)
def test_multiply_add_in_python_integers(alumode: int, expected) -> None:
    random = np.random.default_rng(alumode)
    a, b, d = (random.integers(-(1 << bits - 1), 1 << bits - 1, 50) for bits in (26, 18, 26))
    c = random.integers(-(1 << 47), 1 << 47, 50)
    inputs = _inputs(
        50,
        A=a & (1 << 30) - 1,
        B=b & 0x3FFFF,
        C=c & _MASK48,
        D=d & (1 << 27) - 1,
        INMODE=0b00100,
        OPMODE=0b00_011_01_01,
        ALUMODE=alumode,
    )
    none = dict.fromkeys((name for name in ATTRIBUTES if name.endswith("REG")), 0)
    outputs = simulate({**none, "AMULTSEL": "AD"}, inputs)
    want = [expected(int(z), int(w) * (int(x) + int(y))) & _MASK48 for x, w, z, y in zip(a, b, c, d, strict=True)]
    assert outputs[:, _OUT["P"]].tolist() == want


def test_accumulates_behind_four_registers() -> None:
    random = np.random.default_rng(1)
    a, b = random.integers(-128, 128, (2, 40))
    inputs = _inputs(40, A=a & (1 << 30) - 1, B=b & 0x3FFFF, INMODE=0, OPMODE=0b00_010_01_01)
    got = simulate({"AREG": 1, "BREG": 1}, inputs)[:, _OUT["P"]]
    sums = np.cumsum(a * b)
    np.testing.assert_array_equal(got[2:], sums[:-2] & _MASK48)


def test_four_additions_in_one_adder() -> None:
    random = np.random.default_rng(2)
    c, p = random.integers(0, 1 << 48, (2, 60))
    inputs = _inputs(60, C=c, PCIN=p, OPMODE=0b00_001_11_00)
    none = dict.fromkeys((name for name in ATTRIBUTES if name.endswith("REG")), 0)
    outputs = simulate({**none, "USE_SIMD": "FOUR12", "USE_MULT": "NONE"}, inputs)
    for lane in range(4):
        x, y = (c >> 12 * lane) & 0xFFF, (p >> 12 * lane) & 0xFFF
        np.testing.assert_array_equal((outputs[:, _OUT["P"]] >> 12 * lane) & 0xFFF, (x + y) & 0xFFF)
        np.testing.assert_array_equal((outputs[:, _OUT["CARRYOUT"]] >> lane) & 1, (x + y) >> 12)


def test_names_a_wrong_attribute() -> None:
    with pytest.raises(ValueError, match="no attribute AREGS"):
        attribute_codes({"AREGS": 1})
    with pytest.raises(ValueError, match="AREG must be one of"):
        attribute_codes({"AREG": 3})


def test_vector_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    path.write_bytes(b"not an archive")
    with pytest.raises(VerificationError, match=r"vectors\.npz"):
        load_vectors(path)
    np.savez(path, params="[{}]")
    with pytest.raises(VerificationError, match="in_A is missing"):
        load_vectors(path)


def test_ports_that_were_not_recorded(tmp_path: Path) -> None:
    """A file with some ports: the others rest, and only what was sampled is compared."""
    inputs = _inputs(12, A=5, B=3, OPMODE=0b00_010_01_01)
    outputs = simulate({}, inputs)
    recorded = {f"in_{name}": inputs[None, :, _PORT[name]] for name in ("A", "B", "OPMODE")}
    path = tmp_path / "vectors.npz"
    np.savez(path, params="[{}]", out_P=outputs[None, :, _OUT["P"]], **recorded)
    assert verify_vectors(path).mismatches == 0
    good = {"params": "[{}]", "out_P": outputs[None, :, _OUT["P"]], **recorded}
    broken = {
        "in_Q is no port": {**good, "in_Q": recorded["in_A"]},
        "in_B must be integers of shape": {**good, "in_B": recorded["in_B"][:, :3]},
        "in_B has values beyond its 18 bits": {**good, "in_B": recorded["in_B"] << 20},
        "configuration 0: attributes: DSP48E2 has no attribute AREGS": {**good, "params": '[{"AREGS": 1}]'},
        "2 configurations in params": {**good, "params": "[{}, {}]"},
        "params must be a list": {**good, "params": "{}"},
        "no outputs to compare": {name: part for name, part in good.items() if name != "out_P"},
    }
    for message, arrays in broken.items():
        np.savez(path, **arrays)
        with pytest.raises(VerificationError, match=message):
            load_vectors(path)


def test_replay_counts_a_wrong_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    inputs = random_inputs(random, 16)
    outputs = simulate({}, inputs)
    outputs[7, _OUT["P"]] ^= 1 << 40
    path = tmp_path / "vectors.npz"
    np.savez(
        path,
        params="[{}]",
        **{f"in_{name}": inputs[None, :, index] for name, index in _PORT.items()},
        **{f"out_{name}": outputs[None, :, index] for name, index in _OUT.items()},
    )
    report = verify_vectors(path)
    assert report.mismatches == 2  # one word, seen by the reference and by the twin
    assert report.configurations[0].first_cycle == 7
    assert report.configurations[0].twin_mismatches == {"P": 1}


def test_recorded_vectors(request: pytest.FixtureRequest) -> None:
    paths = request.config.getoption("--vectors", default=[])
    if not paths:
        pytest.skip("no --vectors FILE given")
    for path in paths:
        report = verify_vectors(Path(path))
        assert report.mismatches == 0, [c for c in report.configurations if c.mismatches]
