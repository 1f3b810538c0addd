"""Fit a machine's own timed kernels: the form of the GPU products (gemm.py), fitted where it is used.

    t = launch + ((t_memory / memory_efficiency)^q + (t_compute / compute_efficiency)^q)^(1/q),  then exp(residual)

t_memory and t_compute come from the machine's own peaks; tokens are filled up to the kernel's panels first. Beyond what
was timed, the residual is held at the edge. Needs NumPy alone.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sparsefab.cost_models.gemm import Curve, Floats, Residual, matern
from sparsefab.targets import CpuPeaks, KernelSample, MeasuredCpu

__all__ = [
    "LEAST_MATRICES",
    "MOST_SAMPLES",
    "CpuFit",
    "cpu_fits",
    "fit_samples",
    "kernel_bytes",
    "matrices_of",
    "padded_tokens",
    "samples_table",
]

#: Matrices of one kernel that must have been timed for a fit; with fewer, the shares of peak of `assumptions` hold.
LEAST_MATRICES = 8
#: Samples of one kernel that a fit takes, the first ones: more cost time at every start and say little more.
MOST_SAMPLES = 360
_FOLDS = 5
#: Matrices that a bound leaves outside, on its side: the errors of one matrix go together, so whole ones are counted.
_TAIL = 0.10
_NORMAL = 1.645  # deviations that hold 90 % of a normal spread: no bound is nearer, whatever the few left-out ones say
_CANDIDATES, _ROUNDS, _SUBSET = 400, 8, 120
_STARTS = np.log(np.array([3e-6, 1.0, 0.7, 2.0]))
_AXES = 6
_SINGLE_OCTAVES = 4.0  # how far a kernel of single tokens is from one of panels, as octaves of another axis
_SIXTEEN = ("avx512-amx", "avx512-vnni", "avx512")  # levels with panels of 16 tokens

# columns of a table of samples
ROWS, COLUMNS, TOKENS, DENSITY, SECONDS = range(5)


def padded_tokens(kernel: str, tokens: Floats, isa: str) -> Floats:
    """Fill tokens up to the panels of 1, 16, 32 or 64 that the kernel works on, on a level of instructions.

    The rule is that of `kernels_cpu.spmm.Product.width`, which this package may not import; a test compares the two.
    """
    if kernel == "dequantize_int8":
        return tokens
    wide = np.ceil(tokens / 64.0) * 64.0
    panels = np.where((tokens <= 32.0) & (kernel == "block_4x1"), 32.0, wide)
    if isa in _SIXTEEN:
        most = 32.0 if kernel == "dense_int8" else 16.0
        panels = np.where(tokens <= most, np.ceil(tokens / 16.0) * 16.0, panels)
    return np.where(tokens <= _single(kernel, isa), tokens, panels)


def _single(kernel: str, isa: str) -> float:
    """Most tokens that are multiplied one at a time."""
    if isa == "portable" or kernel == "dequantize_int8":
        return 0.0
    return 1.0 if kernel != "dense_int8" or isa == "avx512-amx" else 2.0 if isa in _SIXTEEN else 3.0


def kernel_bytes(kernel: str, rows: Floats, columns: Floats, tokens: Floats, density: Floats) -> Floats:
    """Bytes that one product moves: stored weights with their offsets, u8 activations, float32 results."""
    stored = {"block_4x1": 2.0, "dense_int8": 1.25, "dequantize_int8": 0.51}[kernel]
    return rows * columns * density * stored + tokens * columns + 4.0 * tokens * rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CpuFit:
    """Curve, residual and bounds of one kernel on one machine.

    lowest, highest : float64[axes]     Range of the coordinates that were timed.
    bounds : (low, high)                Factors of the residual's standard deviation, log domain, low < 0 < high.
    threads : int                       Of the samples.
    isa : str                           Level of instructions, which decides the panels.
    """

    kernel: str
    isa: str
    curve: Curve
    residual: Residual
    lowest: Floats
    highest: Floats
    bounds: tuple[float, float]
    threads: int

    def seconds(self, table: Floats, peaks: CpuPeaks) -> tuple[Floats, Floats, Floats]:
        """Return (value, low, high) in seconds for products, float64[products] each.

        Parameters
        ----------
        table : float64[products, 4]    Rows, columns, tokens, density.
        peaks : CpuPeaks                Rates to run at; those of other threads than the samples' scale the curve.
        """
        points = np.clip(_coordinates(self.kernel, table, self.isa), self.lowest, self.highest)
        shift, deviation = self.residual.predict(points)
        middle = np.log(self.curve.seconds(*_times(self.kernel, table, peaks, self.isa))) + shift
        low, high = self.bounds
        return np.exp(middle), np.exp(middle + low * deviation), np.exp(middle + high * deviation)


def _times(kernel: str, table: Floats, peaks: CpuPeaks, isa: str) -> tuple[Floats, Floats]:
    tokens = padded_tokens(kernel, table[:, TOKENS], isa)
    moved = kernel_bytes(kernel, table[:, ROWS], table[:, COLUMNS], tokens, table[:, DENSITY])
    operations = 2.0 * table[:, ROWS] * table[:, COLUMNS] * table[:, DENSITY] * tokens
    return moved / peaks.memory_bytes_per_s, operations / peaks.int8_op_per_s


def _coordinates(kernel: str, table: Floats, isa: str) -> Floats:
    tokens = padded_tokens(kernel, table[:, TOKENS], isa)
    alone = _SINGLE_OCTAVES * (table[:, TOKENS] <= _single(kernel, isa))
    rows, columns, density = table[:, ROWS], table[:, COLUMNS], table[:, DENSITY]
    axes = [
        np.log2(tokens),
        np.log2(rows),
        np.log2(columns),
        np.log2(density),
        np.log2(rows * columns * density),
        alone,
    ]
    return np.stack(axes, axis=1)


def samples_table(samples: tuple[KernelSample, ...]) -> Floats:
    """Return float64[samples, 5]: rows, columns, tokens, density, seconds."""
    return np.array([(s.rows, s.columns, s.tokens, s.density, s.seconds) for s in samples], np.float64).reshape(-1, 5)


def matrices_of(table: Floats) -> NDArray[np.intp]:
    """Number the timed matrices: rows of one (rows, columns, density) share a number."""
    return np.unique(table[:, [ROWS, COLUMNS, DENSITY]], axis=0, return_inverse=True)[1].reshape(-1)


@lru_cache(maxsize=8)
def cpu_fits(measured: MeasuredCpu) -> dict[str, CpuFit]:
    """Fit every kernel of which enough matrices were timed, by name."""
    peaks = {item.threads: item for item in measured.peaks}
    fits = {}
    for kernel in ("dense_int8", "block_4x1", "dequantize_int8"):
        counts = sorted({s.threads for s in measured.kernels if s.kernel == kernel and s.threads in peaks})
        if not counts:
            continue
        threads = counts[-1]
        own = tuple(s for s in measured.kernels if s.kernel == kernel and s.threads == threads)
        table = samples_table(own)[:MOST_SAMPLES]
        if len(set(matrices_of(table).tolist())) >= LEAST_MATRICES:
            fits[kernel] = fit_samples(kernel, table, peaks[threads], measured.isa)
    return fits


def fit_samples(kernel: str, table: Floats, peaks: CpuPeaks, isa: str) -> CpuFit:
    """Fit float64[samples, 5]; bounds from the errors on matrices left out, a fifth of them at a time."""
    matrix, points = matrices_of(table), _coordinates(kernel, table, isa)
    memory_s, compute_s = _times(kernel, table, peaks, isa)
    curve = _curve(memory_s, compute_s, table[:, SECONDS])
    errors = np.log(table[:, SECONDS] / curve.seconds(memory_s, compute_s))
    smoothness = _smoothness(points, errors)
    fold = np.random.default_rng(0).permutation(int(matrix.max()) + 1)[matrix] % _FOLDS
    ratios = np.zeros(len(table))
    for index in range(_FOLDS):
        kept, left = fold != index, fold == index
        own = _curve(memory_s[kept], compute_s[kept], table[kept, SECONDS])
        rest = np.log(table[:, SECONDS] / own.seconds(memory_s, compute_s))
        shift, deviation = _residual(points[kept], rest[kept], *smoothness).predict(points[left])
        ratios[left] = (rest[left] - shift) / deviation
    least = [ratios[matrix == number].min() for number in range(int(matrix.max()) + 1)]
    most = [ratios[matrix == number].max() for number in range(int(matrix.max()) + 1)]
    level = min(1.0, (1.0 - _TAIL) * (len(most) + 1) / len(most))  # of split-conformal prediction from so many
    low, high = np.quantile(least, 1.0 - level), np.quantile(most, level)
    return CpuFit(
        kernel=kernel, isa=isa, curve=curve, residual=_residual(points, errors, *smoothness), lowest=points.min(0),
        highest=points.max(0), bounds=(min(float(low), -_NORMAL), max(float(high), _NORMAL)), threads=peaks.threads,
    )  # fmt: skip


def _curve(memory_s: Floats, compute_s: Floats, seconds: Floats) -> Curve:
    """Least mean |log error| by random search in a shrinking box; the draws are always the same."""
    random, target = np.random.default_rng(0), np.log(seconds)
    best, width = _STARTS, 2.0
    for _ in range(_ROUNDS):
        logs = np.vstack([best, best + width * random.uniform(-1.0, 1.0, (_CANDIDATES, len(best)))])
        launch, memory, compute, exponent = (part[:, None] for part in np.exp(logs).T)
        a, b = memory_s / memory, compute_s / compute
        larger = np.maximum(a, b)
        blend = larger * (1.0 + (np.minimum(a, b) / larger) ** exponent) ** (1.0 / exponent)
        best = logs[int(np.abs(np.log(launch + blend) - target).mean(1).argmin())]
        width *= 0.5
    values = (float(part) for part in np.exp(best))
    launch_s, memory_efficiency, compute_efficiency, power = values
    return Curve(
        launch_s=launch_s, memory_efficiency=memory_efficiency, compute_efficiency=compute_efficiency, exponent=power
    )


def _smoothness(points: Floats, errors: Floats) -> tuple[Floats, float, float]:
    """Length scales, amplitude and noise of the highest marginal likelihood on a small grid, from a subset."""
    if len(errors) > _SUBSET:
        chosen = np.random.default_rng(0).choice(len(errors), _SUBSET, replace=False)
        points, errors = points[chosen], errors[chosen]
    amplitude = max(float(errors.std()), 0.02)
    candidates = []
    for octaves in (0.5, 1.0, 2.0, 4.0):
        for share in (0.5, 1.0, 2.0):  # of the token axis against the others: steps between panels are sharp
            scales = np.array([octaves * share, *[2.0 * octaves] * (_AXES - 1)])
            values, vectors = np.linalg.eigh(matern(points, points, scales))
            projected = (vectors.T @ errors / amplitude) ** 2
            for noise in (0.05, 0.1, 0.2, 0.4):
                variance = np.maximum(values, 0.0) + noise**2
                candidates.append((float((projected / variance + np.log(variance)).sum()), tuple(scales), noise))
    _, best, noise = min(candidates)
    return np.array(best), amplitude, noise * amplitude


def _residual(points: Floats, errors: Floats, scales: Floats, amplitude: float, noise: float) -> Residual:
    """Smooth the errors: the posterior mean at every sample, from all of them."""
    correlation = matern(points, points, scales)
    weights = np.linalg.solve(correlation + ((noise / amplitude) ** 2 + 1e-8) * np.eye(len(points)), errors)
    return Residual.at(points, correlation @ weights, scales, amplitude, noise)
