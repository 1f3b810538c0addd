"""Price evaluations for cases: the cost models behind sheets that are kept from recipe to recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparsefab.cost_models.batch import PriceSheet
from sparsefab.cost_models.estimate import Estimate, Figure, Options
from sparsefab.cost_models.grouping import Group, layer_kinds
from sparsefab.cost_models.kv import PLAIN_BYTES, KvCache, cache_bytes
from sparsefab.errors import TargetError
from sparsefab.reports.plans import plans_of
from sparsefab.reports.points import Case, Cost, Evaluation, Interval, Provenance, Support
from sparsefab.reports.shapes import ShapeEvaluator
from sparsefab.reports.space import accelerator
from sparsefab.targets import Device
from sparsefab.workload import Attention, Convolution, Linear, Phase, Workload

__all__ = ["Pricer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricer:
    """(Evaluation, Case) -> Cost, by the cost models.

    shapes : ShapeEvaluator | None  Where the plans of a model known by shape alone come from.
    """

    workload: Workload
    targets: Mapping[str, tuple[Device, Options]]
    shapes: ShapeEvaluator | None = None
    _sheets: dict[tuple[object, ...], "_Sheet"] = field(default_factory=dict, compare=False, repr=False)
    _groups: dict[str, Sequence[Group]] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, evaluation: Evaluation, case: Case) -> Cost:
        """Price a recipe; what the target has no kernel for, or does not fit it, is 'absent' with the reason."""
        if evaluation.accuracy is None:
            raise ValueError("an evaluation without accuracy has no plans to price")
        calibration = evaluation.accuracy.details.get("calibration")
        groups = self._grouped(evaluation)
        try:
            sheet = self._sheet(case, None if calibration is None else str(calibration))
            result, support = sheet.prices.price(groups)
            return _cost(result, sheet, support.value)
        except TargetError as error:
            return Cost(status="absent", reason=str(error), support="absent", item=_item(self.workload))
        except ValueError as error:
            if not case.arch:
                raise
            reason = f"no such accelerator: {error}"
            return Cost(status="absent", reason=reason, support="absent", item=_item(self.workload))

    def _grouped(self, evaluation: Evaluation) -> Sequence[Group]:
        """Plans of a recipe, equal layers together; kept for its next case, since cases come recipe by recipe."""
        key = evaluation.job.key
        if key not in self._groups:
            accuracy = evaluation.accuracy
            details = {} if accuracy is None else accuracy.details
            plans = plans_of(details) if self.shapes is None else self.shapes.plans(evaluation.job)
            self._groups.clear()
            self._groups[key] = layer_kinds(self.workload).group(plans)
        return self._groups[key]

    def _sheet(self, case: Case, calibration: str | None) -> "_Sheet":
        """Prices of the layers in a case; kept from recipe to recipe."""
        key = (case.target, case.arch, case.phase, case.batch, case.context, case.kv, calibration)
        if key not in self._sheets:
            device, options = self.targets[case.target]
            if calibration is not None:
                options = replace(options, calibration=calibration)
            if device.kind == "fpga" and options.arch is None:
                options = replace(options, arch=accelerator(device, case.arch))
            if case.kv:
                options = replace(options, kv=KvCache.from_text(case.kv))
            phase = Phase(kind=case.phase, batch=case.batch, context=case.context)
            prices = PriceSheet(self.workload, device, phase, options)
            self._sheets[key] = _Sheet(prices=prices, terms=_fixed_terms(prices))
        return self._sheets[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """Prices in one case, and the terms that no recipe changes."""

    prices: PriceSheet
    terms: Mapping[str, object]


def _fixed_terms(sheet: PriceSheet) -> dict[str, object]:
    workload, device, kv, phase = sheet.workload, sheet.device, sheet.options.kv, sheet.phase
    terms: dict[str, object] = {
        "operations": 2.0 * _macs(workload, phase),
        "peak_op_per_s": _peaks(device, sheet.options),
        "bandwidth_bytes_per_s": device.memory.bandwidth_bytes_per_s.value,
        "memory_capacity_bytes": device.memory.capacity_bytes.value,
    }
    if workload.family == "decoder":
        terms["kv_cache_bytes"] = cache_bytes(workload, phase, kv, PLAIN_BYTES[device.kind])
        terms["kv_extra_operations"] = 2.0 * sum(kv.extra_macs(layer, phase) for layer in workload.attentions())
    return terms


def _cost(result: Estimate, sheet: _Sheet, support: Support) -> Cost:
    price = result.price_per_million_tokens_usd
    blocks = {name: _interval(figure) for name, figure in result.resources.items()}
    bram36 = result.resources.get("bram36")  # one is two of 18 Kbit
    provenance: Provenance = result.provenance.value
    terms: dict[str, object] = {
        **sheet.terms,
        "terms_s": dict(result.terms_s),
        "notes": [*result.notes, *_cache_notes(sheet.prices.options)],
        "sources": list(result.sources),
        "traffic_bytes": float(result.traffic_bytes),
    }
    return Cost(
        item=_item(sheet.prices.workload),
        latency_s=_interval(result.latency_s),
        throughput_tokens_per_s=_interval(result.throughput_tokens_per_s),
        energy_per_token_j=_interval(result.energy_per_token_j),
        power_w=_interval(result.power_w),
        price_per_million_tokens_usd=None if price is None else _interval(price),
        memory_bytes=_interval(result.memory_bytes),
        lut=blocks.get("lut"),
        ff=blocks.get("ff"),
        dsp=blocks.get("dsp"),
        bram18=None if bram36 is None else _interval(bram36.times(2.0)),
        uram=blocks.get("uram"),
        support=support,
        provenance=provenance,
        terms=terms,
    )


def _cache_notes(options: Options) -> tuple[str, ...]:
    return () if options.kv == KvCache() else ("what the cache's format loses of the accuracy is not judged",)


def _macs(workload: Workload, phase: Phase) -> float:
    """Multiplications of a phase, dense; the output projection is read at the last position of a sequence only."""
    total = 0.0
    for layer in workload.layers:
        if isinstance(layer, Linear | Convolution):
            last = isinstance(layer, Linear) and layer.head and workload.family == "decoder"
            total += layer.macs(phase.batch if last else phase.tokens)
        elif isinstance(layer, Attention):
            seen = 0.5 if layer.causal and phase.kind == "prefill" else 1.0
            total += layer.macs(phase.tokens, phase.context) * seen
    return total


def _item(workload: Workload) -> str:
    return "image" if workload.family == "cnn" else "token"


def _peaks(device: Device, options: Options) -> dict[str, float]:
    """Operations a second at the data sheet's or the measured peak, by arithmetic; a multiply-add is two."""
    if device.gpu is not None:
        return {name: peak.value for name, peak in device.gpu.peak_op_per_s.items() if name in ("fp16", "int8")}
    if device.cpu is not None:
        per_cycle = {"int8": device.cpu.int8_op_per_cycle_per_core, "fp32": device.cpu.fp32_op_per_cycle_per_core}
        rate = device.cpu.cores * device.cpu.clock_hz.value
        return {name: quantity.value * rate for name, quantity in per_cycle.items()}
    arch = options.arch
    return {} if arch is None else {"int8": 2.0 * arch.macs_per_cycle * arch.clock_hz}


def _interval(figure: Figure) -> Interval:
    return Interval(value=figure.value, low=figure.low, high=figure.high)
