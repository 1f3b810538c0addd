"""Many estimates of one workload on one target: each distinct (layer shape, plan) is priced once, points are sums.

    sheet = PriceSheet(load_workload("llama2-7b"), load_device("h200"), Phase(kind="decode"))
    totals = sheet.totals(recipes, choices)         # choices[point, layer]: which recipe's plan a layer takes
    totals.latency_s[:, 0]                          # values; columns 1 and 2 are the bounds
    cost = sheet.estimate(recipes[0])               # one Estimate, as `estimate` returns it, without its layers
    cost, support = sheet.price(sheet.kinds.group(recipes[0]))      # the same where recipes are priced on many sheets

The prices are those of `estimate`, to rounding; a test ties the two together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.cost_models.energy import power, price_per_million_tokens
from sparsefab.cost_models.estimate import MODELS
from sparsefab.cost_models.gemm import Floats
from sparsefab.cost_models.grouping import Group, layer_kinds
from sparsefab.cost_models.layers import Options, Priced, total
from sparsefab.cost_models.result import Estimate, Figure, LayerEstimate, LayerPlan, Provenance, Support, Uses
from sparsefab.errors import TargetError
from sparsefab.targets import Device
from sparsefab.workload import Convolution, Linear, Phase, Workload

__all__ = ["PriceSheet", "Totals"]

_VALUE, _LOW, _HIGH, _MEMORY_S, _COMPUTE_S, _TRAFFIC, _RESIDENT, _MACS = range(8)
_FIXED = 8
_TIERS = tuple(Provenance)
_CACHE_SHARE = 0.7  # of a CPU's cache that a model's weights may fill, as in `cpu.price_cpu`
_NO_CACHE, _ALL_CACHE = 1, 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Totals:
    """Costs of many points. Columns of two-dimensional arrays are value, low, high; NaN where a point is refused.

    Attributes
    ----------
    latency_s, throughput_tokens_per_s, energy_per_token_j, power_w : float64[points, 3]
    price_per_million_tokens_usd : float64[points, 3] | None    None without a dated price.
    memory_bytes, traffic_bytes : float64[points]
    refused : dict[int, str]        By point: the target has no kernel for a layer, and why.
    """

    latency_s: Floats
    throughput_tokens_per_s: Floats
    energy_per_token_j: Floats
    power_w: Floats
    price_per_million_tokens_usd: Floats | None
    memory_bytes: Floats
    traffic_bytes: Floats
    refused: dict[int, str]


class PriceSheet:
    """Prices of one workload on one target in one phase, filled as plans are asked for.

    Parameters
    ----------
    options : Options | None        As for `estimate`; another accelerator or cache is another sheet.

    Raises
    ------
    TargetError                     If the accelerator does not fit the board.
    """

    def __init__(self, workload: Workload, device: Device, phase: Phase, options: Options | None = None) -> None:
        self.workload, self.device, self.phase = workload, device, phase
        self.options = Options() if options is None else options
        self.kinds = layer_kinds(workload)
        self.layers = self.kinds.layers
        self._price = MODELS.get(device.kind)
        other = tuple(layer for layer in workload.layers if not isinstance(layer, Linear | Convolution))
        rest = replace(workload, layers=other)
        self._rest = self._price(rest, {}, device, phase, self.options)
        self._terms: list[str] = []
        self._rows: list[tuple[list[float], dict[str, float], int, Support]] = []
        self._known: dict[tuple[int, LayerPlan, bool], int | str] = {}
        self._met: dict[tuple[int, int, bool], tuple[LayerPlan, int | str]] = {}  # by identity: plans hash slowly
        self._said: Priced | None = None  # notes and sources of a weight layer's price
        self._table: tuple[Floats, Floats, NDArray[np.intp]] | None = None
        self._rest_table: tuple[Floats, Floats, Floats] | None = None
        measured = self.options.measured
        self._cache_bytes = 0.0 if measured is None else float(measured.last_level_cache_bytes or 0)
        self._fixed = [_row(layer) for layer in self._rest.layers]

    def estimate(self, plans: Mapping[str, LayerPlan]) -> Estimate:
        """Return what `estimate` does, with `layers` empty.

        Raises
        ------
        TargetError                 If a layer's format is absent on the target.
        ValueError                  If a plan names no layer, or has another shape than its layer.
        """
        return self.price(self.kinds.group(plans))[0]

    def price(self, groups: Sequence[Group]) -> tuple[Estimate, Support]:
        """Return the estimate of grouped plans, and the least support among them: emulated, dequantized or native.

        Raises
        ------
        TargetError, ValueError     As `estimate` does.
        """
        rows = self._choose(groups)
        counts = np.array([group.layers for group in groups], np.float64)
        numbers, terms, tiers = self._tables()
        rest = self._rest_sums()
        sums = counts @ numbers[rows] + rest[0]
        latency = Figure(value=float(sums[_VALUE]), low=float(sums[_LOW]), high=float(sums[_HIGH]))
        shares = np.bincount(tiers[rows], weights=counts * numbers[rows, _VALUE], minlength=len(_TIERS)) + rest[2]
        tier = Provenance.of_sum(zip(_TIERS, shares.tolist(), strict=True))
        summed = dict(zip(self._terms, (counts @ terms[rows] + rest[1]).tolist(), strict=True))
        uses = Uses(
            memory_s=float(sums[_MEMORY_S]),
            compute_s=float(sums[_COMPUTE_S]),
            traffic_bytes=float(sums[_TRAFFIC]),
            resident_bytes=float(sums[_RESIDENT]) + self._rest.resident_bytes,
        )
        present = {name: seconds for name, seconds in summed.items() if seconds}
        priced = replace(self._rest if self._said is None else self._said, layers=())
        found = {self._rows[row][3] for row in rows.tolist()}
        support = next(label for label in (Support.EMULATED, Support.DEQUANTIZED, Support.NATIVE) if label in found)
        return total(self.device, self.workload, self.phase, priced, latency, uses, present, tier), support

    def totals(self, recipes: Sequence[Mapping[str, LayerPlan]], choices: NDArray[np.integer] | None = None) -> Totals:
        """Return the costs of many points.

        Parameters
        ----------
        recipes : sequence of plans by layer name
        choices : int[points, layers] | None    Index into `recipes` for each weight layer, in the workload's order;
                                                None: each recipe as it is.

        Raises
        ------
        ValueError                  If `choices` does not fit, or a plan names no layer or has another shape.
        """
        for recipe in recipes:
            self.kinds.check(recipe)
        if choices is None:
            choices = np.repeat(np.arange(len(recipes))[:, None], len(self.layers), axis=1)
        if choices.ndim != 2 or choices.shape[1] != len(self.layers):
            raise ValueError(f"choices must be of shape (points, {len(self.layers)}), not {choices.shape}")
        if len(choices) and (choices.min() < 0 or choices.max() >= len(recipes)):
            raise ValueError(f"choices must lie in 0 to {len(recipes) - 1}")
        place = np.arange(len(self.layers))[None, :]
        refusals: dict[tuple[int, int], str] = {}
        variants = []
        for cached in (False, True) if self.device.kind == "cpu" else (False,):
            lookup = np.zeros((len(recipes), len(self.layers)), np.intp)
            for index, recipe in enumerate(recipes):
                for position, layer in enumerate(self.layers):
                    found = self._find(self.kinds.of[position], recipe.get(layer.name, _FLOAT), cached)
                    if isinstance(found, str):
                        refusals[index, position] = f"layer {layer.name}: {found}"
                    else:
                        lookup[index, position] = found
            variants.append(lookup[choices, place])
        numbers, _, _ = self._tables()
        sums = _sums(numbers, variants[0])
        if len(variants) == 2:
            fits = sums[:, _RESIDENT] < _CACHE_SHARE * self._cache_bytes
            sums = np.where(fits[:, None], _sums(numbers, variants[1]), sums)
        sums = sums + self._rest_sums()[0]
        refused = _refused(choices, refusals)
        sums[list(refused)] = np.nan
        return self._totals(sums, refused)

    def _totals(self, sums: Floats, refused: dict[int, str]) -> Totals:
        tokens, watts, prices = self.phase.tokens, np.full((len(sums), 3), np.nan), np.full((len(sums), 3), np.nan)
        rates = tokens / sums[:, [_VALUE, _HIGH, _LOW]]
        uses = (sums[:, [_MEMORY_S, _COMPUTE_S]] / sums[:, [_VALUE]]).tolist()
        for point, (memory_use, compute_use) in enumerate(uses):
            if point in refused:
                continue
            figure, _, _ = power(self.device, memory_use, compute_use)
            watts[point] = figure.value, figure.low, figure.high
            value, low, high = rates[point].tolist()
            price = price_per_million_tokens(self.device, Figure(value=value, low=low, high=high), figure)
            if price is not None:
                prices[point] = price.value, price.low, price.high
        latency = sums[:, [_VALUE, _LOW, _HIGH]]
        return Totals(
            latency_s=latency,
            throughput_tokens_per_s=rates,
            energy_per_token_j=watts * latency / tokens,
            power_w=watts,
            price_per_million_tokens_usd=prices if self.device.price else None,
            memory_bytes=sums[:, _RESIDENT] + self._rest.resident_bytes,
            traffic_bytes=sums[:, _TRAFFIC],
            refused=refused,
        )

    def _choose(self, groups: Sequence[Group]) -> NDArray[np.intp]:
        """Rows of the table, one a group; on a CPU, those for weights that fit its cache if they all do."""
        rows = self._chosen(groups, cached=False)
        if self.device.kind == "cpu":
            held = [self._rows[row][0][_RESIDENT] * group.layers for row, group in zip(rows, groups, strict=True)]
            if sum(held) < _CACHE_SHARE * self._cache_bytes:
                return self._chosen(groups, cached=True)
        return rows

    def _chosen(self, groups: Sequence[Group], cached: bool) -> NDArray[np.intp]:
        rows = np.zeros(len(groups), np.intp)
        for index, group in enumerate(groups):
            found = self._find(group.kind, group.plan, cached)
            if isinstance(found, str):
                raise TargetError(f"layer {group.first}: {found}")
            rows[index] = found
        return rows

    def _find(self, kind: int, plan: LayerPlan, cached: bool) -> int | str:
        """Row of a kind of layer under a plan, priced at the first call; the reason in words if it is absent."""
        met = self._met.get((kind, id(plan), cached))
        if met is None:
            met = self._met[kind, id(plan), cached] = plan, self._priced(kind, plan, cached)
        return met[1]

    def _priced(self, kind: int, plan: LayerPlan, cached: bool) -> int | str:
        key = (kind, plan, cached)
        known = self._known.get(key)
        if known is not None:
            return known
        layer = self.kinds.examples[kind]
        options = self.options
        if options.measured is not None:
            size = _ALL_CACHE if cached else _NO_CACHE
            options = replace(options, measured=replace(options.measured, last_level_cache_bytes=size))
        alone = replace(self.workload, layers=(layer,))
        try:
            priced = self._price(alone, {layer.name: plan}, self.device, self.phase, options)
        except TargetError as error:
            self._known[key] = str(error).removeprefix(f"layer {layer.name}: ")
            return self._known[key]
        self._said = replace(priced, resident_bytes=self._rest.resident_bytes)
        self._rows.append(_row(priced.layers[0]))
        self._table = self._rest_table = None
        self._known[key] = len(self._rows) - 1
        return self._known[key]

    def _tables(self) -> tuple[Floats, Floats, NDArray[np.intp]]:
        """Numbers float64[rows, 8], terms float64[rows, terms], and tiers of all rows so far."""
        if self._table is None:
            self._terms = list(dict.fromkeys(term for _, terms, _, _ in [*self._fixed, *self._rows] for term in terms))
            numbers = np.array([row for row, _, _, _ in self._rows], np.float64).reshape(-1, _FIXED)
            terms = [[terms.get(name, 0.0) for name in self._terms] for _, terms, _, _ in self._rows]
            tiers = np.array([tier for _, _, tier, _ in self._rows], np.intp)
            self._table = numbers, np.array(terms, np.float64).reshape(-1, len(self._terms)), tiers
        return self._table

    def _rest_sums(self) -> tuple[Floats, Floats, Floats]:
        """Sums over the layers without weights: numbers, terms, latency by tier; after `_tables`, which names terms."""
        if self._rest_table is not None:
            return self._rest_table
        numbers = np.array([row for row, _, _, _ in self._fixed], np.float64).reshape(-1, _FIXED)
        terms = np.array([[terms.get(name, 0.0) for name in self._terms] for _, terms, _, _ in self._fixed])
        tiers = np.zeros(len(_TIERS))
        for row, _, tier, _ in self._fixed:
            tiers[tier] += row[_VALUE]
        self._rest_table = numbers.sum(axis=0), terms.reshape(-1, len(self._terms)).sum(axis=0), tiers
        return self._rest_table


_FLOAT = LayerPlan()


def _row(layer: LayerEstimate) -> tuple[list[float], dict[str, float], int, Support]:
    latency, uses = layer.latency_s, layer.uses
    numbers = [latency.value, latency.low, latency.high, uses.memory_s, uses.compute_s, uses.traffic_bytes,
               uses.resident_bytes, layer.macs]  # fmt: skip
    return numbers, dict(layer.terms_s), _TIERS.index(layer.provenance), layer.support


def _sums(numbers: Floats, rows: NDArray[np.intp]) -> Floats:
    """Sum the rows of each point, column by column: float64[points, 8]."""
    return np.stack([np.take(column, rows).sum(axis=1) for column in numbers.T], axis=1)


def _refused(choices: NDArray[np.integer], refusals: Mapping[tuple[int, int], str]) -> dict[int, str]:
    """Points that take a refused (recipe, layer), each with the first reason."""
    refused: dict[int, str] = {}
    for (recipe, position), reason in refusals.items():
        for point in np.flatnonzero(choices[:, position] == recipe).tolist():
            refused.setdefault(point, reason)
    return refused
