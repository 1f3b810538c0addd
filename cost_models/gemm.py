"""Time of a GPU matrix product: a four-parameter roofline, a smooth residual over anchor shapes, and calibrated bounds.

    t_memory, t_compute     bytes / bandwidth and operations / peak, from the data sheet
    t = launch + ((t_memory / memory_efficiency)^q + (t_compute / compute_efficiency)^q)^(1/q)
    log t += residual(coordinates(m, n, k))         Matern-3/2 interpolation of the residuals at the anchors

The residual's own uncertainty, which grows with the distance to the anchors, is scaled by factors that made 90 % of
shapes outside the fit fall inside, one pair of factors a regime. Everything is vectorized over shapes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["REGIMES", "Curve", "GemmFit", "Residual", "classify", "coordinates", "matern"]

Floats = NDArray[np.float64]

#: 'decode': few rows over large matrices; 'launch': the constant is over half of the time; else the larger roofline
#: term.
REGIMES = ("decode", "launch", "memory", "compute")
_DECODE_ROWS, _DECODE_SIDE = 64, 2048
_FEW_SHAPES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The four parameters of one (device, kernel family)."""

    launch_s: float
    memory_efficiency: float
    compute_efficiency: float
    exponent: float

    def seconds(self, memory_s: Floats, compute_s: Floats) -> Floats:
        """Return the blended roofline; the maximum of the two terms for a large exponent.

        Parameters
        ----------
        memory_s, compute_s : float64[...]      Data-sheet times, positive.
        """
        memory, compute = memory_s / self.memory_efficiency, compute_s / self.compute_efficiency
        larger = np.maximum(memory, compute)
        ratio = np.minimum(memory, compute) / larger
        return self.launch_s + larger * (1.0 + ratio**self.exponent) ** (1.0 / self.exponent)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residual:
    """A smooth function of coordinates, given by values at anchors.

    anchors : float64[anchors, axes]    Coordinates of anchor shapes.
    values : float64[anchors]           Log residual there.
    scales : float64[axes]              Distance along each axis over which the residual changes.
    amplitude, noise : float            Its standard deviation, and that of a single measurement around it.
    """

    anchors: Floats
    values: Floats
    scales: Floats
    amplitude: float
    noise: float
    weights: Floats
    inverse: Floats

    @staticmethod
    def at(anchors: Floats, values: Floats, scales: Floats, amplitude: float, noise: float) -> "Residual":
        """Solve for the interpolation weights once."""
        correlation = matern(anchors, anchors, scales)
        weights = np.linalg.solve(correlation + 1e-6 * np.eye(len(anchors)), values)
        inverse = np.linalg.inv(correlation + (noise / amplitude) ** 2 * np.eye(len(anchors)))
        return Residual(
            anchors=anchors,
            values=values,
            scales=scales,
            amplitude=amplitude,
            noise=noise,
            weights=np.asarray(weights, np.float64),
            inverse=np.asarray(inverse, np.float64),
        )

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Return the residual and its standard deviation at points float64[shapes, axes]."""
        near = matern(points, self.anchors, self.scales)
        known = ((near @ self.inverse) * near).sum(1)
        variance = self.noise**2 + self.amplitude**2 * np.clip(1.0 - known, 0.0, 1.0)
        return near @ self.weights, np.sqrt(variance)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GemmFit:
    """Curve, residual and bounds of one (device, kernel family).

    bounds : dict[regime, (low, high)]      Factors of the residual's standard deviation, log domain, low < 0 < high.
    """

    device: str
    kernel: str
    curve: Curve
    residual: Residual
    bounds: dict[str, tuple[float, float]]

    def seconds(
        self, m: Floats, n: Floats, k: Floats, memory_s: Floats, compute_s: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return (value, low, high) in seconds for products [m, k] x [k, n], float64[shapes] each."""
        base = self.curve.seconds(memory_s, compute_s)
        shift, deviation = _residual_at(self.residual, m, n, k)
        regime = classify(m, n, k, self.curve, memory_s, compute_s)
        factors = np.array([self.bounds[name] for name in REGIMES])[regime]
        middle = np.log(base) + shift
        return (
            np.exp(middle),
            np.exp(middle + np.minimum(factors[:, 0], 0.0) * deviation),
            np.exp(middle + np.maximum(factors[:, 1], 0.0) * deviation),
        )


def _residual_at(residual: Residual, m: Floats, n: Floats, k: Floats) -> tuple[Floats, Floats]:
    """Evaluate a residual; the few shapes of a model come back in every point of a sweep and are remembered."""
    if len(m) > _FEW_SHAPES:
        return residual.predict(coordinates(m, n, k))
    shapes = zip(m.tolist(), n.tolist(), k.tolist(), strict=True)
    pairs = np.array([_residual_of_shape(residual, *shape) for shape in shapes]).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


@lru_cache(maxsize=1 << 16)
def _residual_of_shape(residual: Residual, m: float, n: float, k: float) -> tuple[float, float]:
    shift, deviation = residual.predict(coordinates(np.array([m]), np.array([n]), np.array([k])))
    return float(shift[0]), float(deviation[0])


def coordinates(m: Floats, n: Floats, k: Floats) -> Floats:
    """Return the residual's axes: octaves of m, n, k and of all elements (cache), and whether m is 1 (GEMV)."""
    elements = m * k + n * k + m * n
    return np.stack([np.log2(m), np.log2(n), np.log2(k), np.log2(elements), (m == 1).astype(np.float64)], axis=1)


def classify(m: Floats, n: Floats, k: Floats, curve: Curve, memory_s: Floats, compute_s: Floats) -> NDArray[np.intp]:
    """Return the index into REGIMES of each shape."""
    memory, compute = memory_s / curve.memory_efficiency, compute_s / curve.compute_efficiency
    decode = (m <= _DECODE_ROWS) & (n >= _DECODE_SIDE) & (k >= _DECODE_SIDE)
    launch = curve.launch_s > np.maximum(memory, compute)
    return np.select([decode, launch, memory >= compute], [0, 1, 2], 3).astype(np.intp)


def matern(left: Floats, right: Floats, scales: Floats) -> Floats:
    """Matern-3/2 correlation of points [a, axes] and [b, axes]: float64[a, b]."""
    a, b = left / scales, right / scales
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * a @ b.T
    distance = np.sqrt(3.0 * np.maximum(squares, 0.0))
    return np.asarray((1.0 + distance) * np.exp(-distance))
