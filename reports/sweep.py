"""Explore a model: jobs of recipes, judged bit-true in worker processes, and the cases to price them for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sparsefab.cost_models.estimate import Options
from sparsefab.errors import VerificationError
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
from sparsefab.reports.plans import plans_json
from sparsefab.reports.points import Accuracy, Case, Interval, Job, LayerError
from sparsefab.reports.store import Store
from sparsefab.targets import Device
from sparsefab.workload import Workload

__all__ = [
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


def _interval(figure: object) -> Interval:
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
