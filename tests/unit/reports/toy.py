"""A made-up exploration for the tests: recipes of a few bits, three targets, figures from closed formulas."""

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from sparsefab.errors import ModelError
from sparsefab.reports.points import Accuracy, Case, Cost, Device, Evaluation, Interval, Job, Phase

DEVICES: dict[str, Device] = {"u280": "fpga", "xeon-8375c": "cpu", "a100": "gpu"}
SPEED = {"u280": 1.0, "xeon-8375c": 9.0, "a100": 0.6}


def around(value: float, part: float) -> Interval:
    """An interval of +-part around a value."""
    width = abs(value) * part
    return Interval(value=value, low=value - width, high=value + width)


def make_jobs(count: int) -> list[Job]:
    """Recipes that differ in bits and density."""
    return [make_job(2 + index % 7, 1.0 - 0.5 * (index // 7) / max(1, count // 7)) for index in range(count)]


def make_job(bits: int, density: float) -> Job:
    text = f'[[rule]]\nlayers = "*"\nweights = "int{bits}"\ndensity = {density:.4f}\n'
    return Job(
        model="toy-lm",
        model_hash="m0",
        recipe=f"int{bits}-d{100 * density:.0f}",
        recipe_text=text,
        data_hash="d16",
        evaluator="1",
    )


def make_cases(phases: tuple[Phase, ...] = ("prefill", "decode")) -> list[Case]:
    return [
        Case(target=target, device=device, phase=phase, batch=1, context=512, cost_hash="c0")
        for target, device in DEVICES.items()
        for phase in phases
    ]


def fields(job: Job) -> tuple[int, float]:
    """Bits and density of a recipe's text."""
    lines = dict(line.split(" = ", 1) for line in job.recipe_text.splitlines() if " = " in line)
    return int(lines["weights"].strip('"')[3:]), float(lines["density"])


def accuracy(job: Job) -> Accuracy:
    """The evaluation itself, without a process around it."""
    bits, density = fields(job)
    loss = 40.0 * 2.0 ** (-1.5 * bits) + 3.0 * (1.0 - density) ** 2
    loss *= 1.05 if job.fidelity == "full" else 1.0
    weights = bits * density + 0.125
    return Accuracy(
        metric="perplexity",
        better="lower",
        accuracy=around(24.18 + loss, 0.02),
        baseline=24.18,
        delta=around(loss, 0.1 if job.fidelity == "full" else 0.2),
        protocol="16 windows of 512 tokens",
        weight_bytes=int(weights * 1e6),
        bits_per_weight=weights,
        float_layers=("embedding", "norm"),
        details={"bits": bits},
    )


def cost(evaluation: Evaluation, case: Case) -> Cost:
    """The price, from the bits per weight; two-bit recipes have no kernel on the GPU."""
    bits, density = fields(evaluation.job)
    if case.device == "gpu" and bits == 2:
        return Cost(status="absent", reason="a100 has no 2-bit kernel", support="absent")
    seconds = 1e-4 * SPEED[case.target] * (2.0 + bits * density) * (10 if case.phase == "prefill" else 1)
    fpga = case.device == "fpga"
    return Cost(
        latency_s=around(seconds, 0.1),
        throughput_tokens_per_s=around(1 / seconds, 0.1),
        energy_per_token_j=around(seconds * 30, 0.3),
        power_w=around(30.0, 0.3),
        memory_bytes=around(1e6 * (bits * density + 1), 0.0),
        lut=around(401_000, 0.1) if fpga else None,
        ff=around(802_000, 0.1) if fpga else None,
        dsp=around(6_144, 0.0) if fpga else None,
        bram18=around(1_152, 0.0) if fpga else None,
        uram=around(320, 0.0) if fpga else None,
        support="native",
        provenance="modelled" if fpga else "calibrated",
        terms={"compute_s": seconds * 0.4, "memory_s": seconds * 0.6},
    )


def refine(job: Job) -> Job:
    return replace(job, fidelity="full", data_hash="d64")


@dataclass(frozen=True)
class LoggedEvaluation:
    """Evaluate slowly, and note in a file when each job began and when it was done."""

    log: Path
    pause_s: float = 0.0

    def __call__(self, job: Job) -> Accuracy:
        self._note("begun", job)
        time.sleep(self.pause_s)
        self._note("done", job)
        return accuracy(job)

    def _note(self, what: str, job: Job) -> None:
        with open(self.log, "a") as stream:
            stream.write(f"{what} {job.key}\npid {os.getpid()}\n")


@dataclass(frozen=True)
class TroubledEvaluation:
    """Two recipes fail, one kills its worker the first time it is tried, one always."""

    folder: Path

    def __call__(self, job: Job) -> Accuracy:
        bits, _ = fields(job)
        if bits == 3:
            raise ModelError("recipe int3 matches no layer; name one of: a, b")
        if bits == 4:
            raise ZeroDivisionError("division by zero")
        once = self.folder / "died-once"
        if bits == 5 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if bits == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return accuracy(job)


def thread_limits(name: str) -> str | None:
    """In a worker: what the numeric libraries see."""
    return os.environ.get(name)


def blocks(number: signal.Signals) -> bool:
    """In a worker: whether a signal is kept from it."""
    return number in signal.pthread_sigmask(signal.SIG_BLOCK, [])
