"""Explore a model: recipes judged bit-true in worker processes, priced on targets, fronts refined."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sparsefab.cost_models.batch import PriceSheet
from sparsefab.cost_models.estimate import Estimate, Figure, Options
from sparsefab.cost_models.kv import PLAIN_BYTES, KvCache, cache_bytes
from sparsefab.errors import TargetError, VerificationError
from sparsefab.formats import pack, storage_layout
from sparsefab.models.compress import CompressedModel, Recipe, compress
from sparsefab.models.compress.recipe import recipe_from_text
from sparsefab.models.evaluate import (
    BitTrueRunner,
    RecordCache,
    Slice,
    agreement,
    calibrate,
    code_version,
    executor,
    judge,
    records_key,
    task_for,
)
from sparsefab.models.evaluate.evaluation import Progress
from sparsefab.models.evaluate.tasks import Task
from sparsefab.models.model import Model
from sparsefab.models.source import Source
from sparsefab.reports.plans import plans_json, plans_of
from sparsefab.reports.points import Accuracy, Case, Cost, Evaluation, Interval, Job, LayerError, Provenance, Support
from sparsefab.reports.shapes import ShapeEvaluator
from sparsefab.reports.space import accelerator
from sparsefab.reports.store import Store
from sparsefab.targets import Device
from sparsefab.workload import Attention, Convolution, Linear, Phase, Workload

__all__ = [
    "Pricer",
    "RecipeEvaluator",
    "cases_for",
    "full_job",
    "jobs_for",
    "layer_errors",
    "open_model",
    "packed_bytes",
]

FLOAT_BYTES = 2  # weights that no recipe compresses are counted as fp16


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeEvaluator:
    """Job -> Accuracy, in whatever process it is called; models and records are kept from job to job.

    records : Path              Folder of kept records, shared by all processes.
    """

    source: Source
    cache_dir: Path
    records: Path
    data: Path | None
    screen: Slice
    full: Slice
    seed: int = 0

    def __call__(self, job: Job) -> Accuracy:
        """Compress, calibrate and judge one recipe."""
        model = open_model(self.source)
        task = self.task(model, job.fidelity)
        recipe = recipe_from_text(job.recipe_text)
        compressed = calibrate(compress(model, recipe), task.calibration_feeds())
        kept = RecordCache(self.records)
        baseline = kept.records(self._key(job, "baseline", task), task, executor(model))
        records = baseline
        if compressed.layers:
            runner = BitTrueRunner(compressed)
            if differing := [a.layer for a in agreement(runner, task.check_feed(), tokens=1) if a.mismatches]:
                raise VerificationError(f"layer {differing[0]} differs from the reference; the figures would be wrong")
            records = kept.records(self._key(job, job.recipe_text, task), task, executor(model, runner))
        result = judge(task, baseline, records, compressed.notes, self.seed)
        packed = packed_bytes(compressed)
        stored = sum(packed.values())
        return Accuracy(
            metric=result.metric,
            better="higher" if result.higher_is_better else "lower",
            accuracy=_interval(result.compressed),
            baseline=result.baseline.value,
            delta=_interval(result.delta),
            protocol=f"{result.protocol.text}; {result.arithmetic}",
            weight_bytes=stored,
            bits_per_weight=stored * 8 / model.workload.parameters,
            float_layers=tuple(name for name in model.weights if name not in compressed.layers),
            details={
                "plans": plans_json(compressed),
                "layers": [  # in order, which the keys of a table lose in the store
                    [name, layer.relative_error, packed[name] * 8 / model.weights[name].size]
                    for name, layer in compressed.layers.items()
                ],
                "protocol": result.protocol.to_json(),
                "notes": [list(note) for note in compressed.notes],
            },
        )

    def baseline(self, job: Job, progress: Progress | None = None) -> None:
        """Compute and keep the float baseline, at full length."""
        model = open_model(self.source)
        task = self.task(model, "full")
        RecordCache(self.records).records(self._key(job, "baseline", task), task, executor(model), progress)

    def task(self, model: Model, fidelity: str) -> Task:
        """The task at one fidelity; the screen's samples are the first of the full ones."""
        part = self.full if fidelity == "full" else self.screen
        return task_for(self.source, model, self.cache_dir, part, self.data)

    def _key(self, job: Job, what: str, task: Task) -> str:
        return records_key(job.model_hash, what, task, job.evaluator)


@lru_cache(maxsize=1)
def open_model(source: Source) -> Model:
    """Load a model once a process."""
    return source.load()


def packed_bytes(compressed: CompressedModel) -> dict[str, int]:
    """Bytes of every weight layer: packed with all metadata, or fp16 where it stays in float."""
    sizes = {}
    for name, weights in compressed.model.weights.items():
        layer = compressed.layers.get(name)
        if layer is None:
            sizes[name] = weights.size * FLOAT_BYTES
        else:
            sizes[name] = pack(layer.tensor, storage_layout(layer.tensor.spec)).nbytes
    return sizes


def layer_errors(store: Store, jobs: Sequence[Job]) -> list[LayerError]:
    """The errors of all layers of the jobs that the store has evaluations of, in the order of the jobs."""
    found = []
    for job in jobs:
        evaluation = store.evaluation(job)
        layers = evaluation.accuracy.details.get("layers") if evaluation and evaluation.accuracy else None
        if isinstance(layers, list):
            found += [
                LayerError(recipe=job.recipe, layer=name, relative_error=error, bits_per_weight=bits)
                for name, error, bits in layers
            ]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricer:
    """(Evaluation, Case) -> Cost, by the cost models.

    shapes : ShapeEvaluator | None  Where the plans of a model known by shape alone come from.
    """

    workload: Workload
    targets: Mapping[str, tuple[Device, Options]]
    shapes: ShapeEvaluator | None = None
    _sheets: dict[tuple[object, ...], tuple[PriceSheet, float]] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, evaluation: Evaluation, case: Case) -> Cost:
        """Price a recipe; what the target has no kernel for, or does not fit it, is 'absent' with the reason."""
        if evaluation.accuracy is None:
            raise ValueError("an evaluation without accuracy has no plans to price")
        details = evaluation.accuracy.details
        plans = plans_of(details) if self.shapes is None else self.shapes.plans(evaluation.job)
        calibration = details.get("calibration")
        try:
            sheet, macs = self._sheet(case, None if calibration is None else str(calibration))
            return _cost(sheet.estimate(plans), sheet, sheet.support(plans).value, macs)
        except TargetError as error:
            return Cost(status="absent", reason=str(error), support="absent", item=_item(self.workload))
        except ValueError as error:
            if not case.arch:
                raise
            reason = f"no such accelerator: {error}"
            return Cost(status="absent", reason=reason, support="absent", item=_item(self.workload))

    def _sheet(self, case: Case, calibration: str | None) -> tuple[PriceSheet, float]:
        """Prices of the layers in a case, and its multiplications; kept from recipe to recipe."""
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
            self._sheets[key] = PriceSheet(self.workload, device, phase, options), _macs(self.workload, phase)
        return self._sheets[key]


def _cost(result: Estimate, sheet: PriceSheet, support: Support, macs: float) -> Cost:
    workload, device = sheet.workload, sheet.device
    price = result.price_per_million_tokens_usd
    blocks = {name: _interval(figure) for name, figure in result.resources.items()}
    bram36 = result.resources.get("bram36")  # one is two of 18 Kbit
    provenance: Provenance = result.provenance.value
    terms: dict[str, object] = {"terms_s": dict(result.terms_s), "notes": [*result.notes, *_cache_notes(sheet.options)]}
    terms["sources"] = list(result.sources)
    terms["operations"] = 2.0 * macs
    terms["traffic_bytes"] = float(result.traffic_bytes)
    terms["peak_op_per_s"] = _peaks(device, sheet.options)
    terms["bandwidth_bytes_per_s"] = device.memory.bandwidth_bytes_per_s.value
    if workload.family == "decoder":
        kv, phase = sheet.options.kv, sheet.phase
        terms["kv_cache_bytes"] = cache_bytes(workload, phase, kv, PLAIN_BYTES[device.kind])
        terms["kv_extra_operations"] = 2.0 * sum(kv.extra_macs(layer, phase) for layer in workload.attentions())
    terms["memory_capacity_bytes"] = device.memory.capacity_bytes.value
    return Cost(
        item=_item(workload),
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


def _interval(figure: "Figure | object") -> Interval:
    value, low, high = (getattr(figure, part) for part in ("value", "low", "high"))
    # too few samples for an interval: the figure stands alone
    return Interval(value=value, low=value if low is None else low, high=value if high is None else high)


def jobs_for(evaluator: RecipeEvaluator, recipes: Sequence[Recipe], model_hash: str, data_hash: str) -> list[Job]:
    """One screening job a recipe."""
    version = code_version()
    return [
        Job(
            model=evaluator.source.name,
            model_hash=model_hash,
            recipe=recipe.name,
            recipe_text=recipe.text,
            data_hash=f"{data_hash}:{_slice_text(evaluator.screen)}",
            evaluator=version,
            seed=evaluator.seed,
        )
        for recipe in recipes
    ]


def full_job(evaluator: RecipeEvaluator, job: Job) -> Job:
    """The same recipe at full fidelity."""
    data = job.data_hash.split(":")[0]
    return replace(job, fidelity="full", data_hash=f"{data}:{_slice_text(evaluator.full)}")


def _slice_text(part: Slice) -> str:
    if part == Slice():
        return "all"
    return f"{part.windows or 'all'}x{part.context or 'all'}/{part.samples or 'all'}"


def cases_for(
    workload: Workload,
    name: str,
    target: tuple[Device, Options],
    batches: Sequence[int],
    contexts: Sequence[int],
    arch: str = "",
    kvs: Sequence[str] = (),
) -> list[Case]:
    """Every phase at every batch, context and cache on one target; decode first where the model has it.

    kvs : key/value caches; none, or a model that keeps no cache: the device's own format.
    """
    if workload.family == "cnn":
        contexts = (1,)  # an image is what a CNN's phase counts
    phases: tuple[Literal["decode", "prefill"], ...] = (
        ("decode", "prefill") if workload.family == "decoder" else ("prefill",)
    )
    device, options = target
    return [
        Case(
            target=name,
            device=device.kind,
            phase=phase,
            batch=batch,
            context=context,
            cost_hash=_cost_hash(repr(device), repr(options)),
            arch=arch,
            kv=kv,
        )
        for batch in batches
        for context in contexts
        for kv in (kvs if workload.family == "decoder" else ()) or ("",)
        for phase in phases
    ]


@lru_cache(maxsize=64)
def _cost_hash(device: str, options: str) -> str:
    return hashlib.sha256(f"{device}{options}{_cost_version()}".encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _cost_version() -> str:
    import sparsefab.arch
    import sparsefab.cost_models
    import sparsefab.formats
    import sparsefab.workload
    import sparsefab.workloads

    parts = (sparsefab.cost_models, sparsefab.formats, sparsefab.workloads)
    folders = [Path(str(part.__file__)).parent for part in parts]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    digest = hashlib.sha256()
    for path in sorted([*files, Path(str(sparsefab.arch.__file__)), Path(str(sparsefab.workload.__file__))]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
