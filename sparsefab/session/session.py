"""Open, compress, evaluate, run and estimate a model; the class that everything else hangs on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.arch import AcceleratorArch
from sparsefab.cost_models.estimate import Estimate, KvCache, LayerPlan, Options, estimate
from sparsefab.cost_models.user_anchors import load_user_anchors
from sparsefab.errors import ModelError
from sparsefab.models.compress import PUBLISHED, CompressedModel, Recipe, compress, find_recipe
from sparsefab.models.evaluate import (
    BitTrueRunner,
    Evaluation,
    LayerAgreement,
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
from sparsefab.models.model import Model
from sparsefab.models.source import Source, resolve
from sparsefab.reports.plans import shape_plans
from sparsefab.session.exploration import HOST, explore
from sparsefab.session.hardware import emit, verify, verify_chain, verify_model, verify_requantizer
from sparsefab.session.running import run
from sparsefab.session.versions import installed
from sparsefab.session.vivado import compare_vivado
from sparsefab.storage import default_cache_dir, write_atomic
from sparsefab.targets import Device, MeasuredCpu, load_cpu_measurements, load_device, measured_device
from sparsefab.workload import Phase, Workload

if TYPE_CHECKING:
    pass

__all__ = ["Evaluated", "Session"]

log = logging.getLogger(__name__)

_PROMPT_TOKENS = 32  # of the evaluation data, where a text model is run without a prompt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluated:
    """A compressed model, what it is worth, and the check of its layers against the reference."""

    compressed: CompressedModel
    evaluation: Evaluation
    agreement: tuple[LayerAgreement, ...]


class Session:
    """Holds the cache folder and the seed; every method may be called on its own.

    Running, exploration and hardware have modules of their own, whose functions are methods here.

    Parameters
    ----------
    cache_dir : Path | None         Models, records and measurements; default ~/.cache/sparsefab.
    seed : int                      Of everything random.
    """

    run = run
    explore = explore
    emit = emit
    verify = verify
    verify_chain = verify_chain
    verify_requantizer = verify_requantizer
    verify_model = verify_model
    compare_vivado = compare_vivado

    def __init__(self, cache_dir: Path | None = None, seed: int = 0) -> None:
        self.cache_dir = default_cache_dir() if cache_dir is None else cache_dir
        self.seed = seed

    # models and recipes

    def source(self, model: str) -> Source:
        """Find a model by catalogue name or path."""
        return resolve(model, self.cache_dir)

    def compress(
        self, model: Model, recipe: str | Recipe, progress: Callable[[str], None] | None = None
    ) -> CompressedModel:
        """Compress a loaded model by a recipe, a built-in recipe's name or a file; activations are not calibrated."""
        return compress(model, recipe if isinstance(recipe, Recipe) else find_recipe(recipe), progress)

    def calibrate(self, compressed: CompressedModel, source: Source, data: Path | None = None) -> CompressedModel:
        """Give static activations their scales, from the model's calibration data or from `data`.

        Raises
        ------
        ModelError                  If there is no data for a model that needs it.
        """
        if not compressed.uncalibrated:
            return compressed
        task = task_for(source, compressed.model, self.cache_dir, Slice(), data)
        return calibrate(compressed, task.calibration_feeds())

    def evaluate(
        self,
        model: str,
        recipe: str | Recipe,
        part: Slice | None = None,
        data: Path | None = None,
        check_tokens: int = 2,
        progress: Progress | None = None,
    ) -> Evaluated:
        """Judge a recipe bit-true against the float baseline, and check every layer against the reference.

        check_tokens : tokens (output pixels) of each layer that are recomputed by `sim.reference`; 0 checks none.
        """
        source = self.source(model)
        loaded = source.load()
        task = task_for(source, loaded, self.cache_dir, part or Slice(), data)
        compressed = calibrate(self.compress(loaded, recipe), task.calibration_feeds())
        kept, model_sha256, code = RecordCache(self.cache_dir / "records"), source.sha256, code_version()
        key = records_key(model_sha256, "baseline", task, code)
        baseline = kept.records(key, task, executor(loaded), progress)
        runner = BitTrueRunner(compressed)
        # first, so that a difference is known before the long part
        checked = tuple(agreement(runner, task.check_feed(), tokens=check_tokens)) if check_tokens else ()
        records = baseline
        if compressed.layers:
            key = records_key(model_sha256, compressed.recipe.text, task, code)
            records = kept.records(key, task, executor(loaded, runner), progress)
        return Evaluated(
            compressed=compressed,
            evaluation=judge(task, baseline, records, compressed.notes, self.seed),
            agreement=checked,
        )

    def export(self, compressed: CompressedModel, source: Source, out: Path) -> dict[str, Path]:
        """Write a compressed model for others: weights.safetensors, model.onnx (QDQ), recipe.toml, manifest.json.

        Raises
        ------
        StorageError                If a file cannot be written; each is there whole or not at all.
        """
        import json

        from sparsefab.models.onnx_export import export_onnx
        from sparsefab.models.safetensors_export import export_safetensors
        from sparsefab.storage import make_folder

        make_folder(out)
        names = ("weights.safetensors", "model.onnx", "recipe.toml", "manifest.json")
        files = {name: out / name for name in names}
        tensors = {name: layer.tensor for name, layer in compressed.layers.items()}
        export_safetensors(compressed.model, files["weights.safetensors"], tensors)
        scales = {name: (layer.activations, layer.static) for name, layer in compressed.layers.items() if layer.static}
        notes = export_onnx(compressed.model, files["model.onnx"], tensors, scales)
        write_atomic(files["recipe.toml"], compressed.recipe.text.encode())
        manifest = {
            "model": source.name,
            "model_sha256": source.sha256,
            "recipe": compressed.recipe.name,
            "layers": {name: tensor.spec.to_json() for name, tensor in tensors.items()},
            "notes": [list(note) for note in compressed.notes],
            "onnx_notes": [list(note) for note in (*notes, *_float_activations(compressed))],
            "versions": {name: installed(name) for name in ("sparsefab", "numpy", "onnx")},
        }
        write_atomic(files["manifest.json"], (json.dumps(manifest, indent=2) + "\n").encode())
        return files

    # costs

    def target(
        self, name: str, arch: AcceleratorArch | None = None, calibration: str | None = None
    ) -> tuple[Device, Options]:
        """Load a target: a device by name or TOML file; 'host' is this machine, measured once and kept.

        Raises
        ------
        TargetError                 If there is no such device.
        """
        if name != HOST:
            device = load_device(name)
            return device, Options(arch=arch if device.kind == "fpga" else None, calibration=calibration)
        path = self.host_measurements()
        measured = load_cpu_measurements(path)
        return measured_device(measured), Options(measured=measured)

    def measured_host(self) -> MeasuredCpu | None:
        """Return what was measured on this machine, None if nothing was."""
        from sparsefab.host import machine_key

        path = self.cache_dir / "measured" / f"cpu-{machine_key()}.toml"
        return load_cpu_measurements(path) if path.is_file() else None

    def host_measurements(
        self,
        kernels_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        level: str | None = None,
    ) -> Path:
        """Return the file with this machine's measured peaks, measuring once (about 15 s) if it is not there.

        kernels_s : float | None        Measure anew, and time the kernels for so many seconds.
        level : str | None              Instructions of the kernels that are timed; None is the best that runs here.
        """
        from sparsefab import config
        from sparsefab.host import machine_key, measure_host, time_kernels
        from sparsefab.kernels_cpu.features import level_named
        from sparsefab.storage import make_folder

        path = self.cache_dir / "measured" / f"cpu-{machine_key()}.toml"
        if kernels_s is not None or not path.is_file():
            log.info("measuring this machine's peaks into %s", path)
            kept = None if level is None else level_named(level)
            measured = measure_host(datetime.now(UTC).date().isoformat(), level=kept)
            if kernels_s is not None:
                kernels = time_kernels(kernels_s, seed=self.seed, level=kept, progress=progress)
                measured = replace(measured, kernels=kernels)
            make_folder(path.parent)
            write_atomic(path, config.dumps(measured).encode())
        return path

    def workload(self, model: str) -> Workload:
        """Return the layers and shapes of a catalogue model, a file, or a model known by shape alone."""
        from sparsefab.models.zoo import entries
        from sparsefab.workloads import WORKLOADS, load_workload

        known = {entry.name for entry in entries()}
        if model in WORKLOADS and (model not in known or not self.is_here(model)):
            return load_workload(model)
        source = self.source(model)
        return replace(source.load().workload, name=source.name)

    def is_here(self, model: str) -> bool:
        """Say whether a model's weights are to be had without a download."""
        try:
            self.source(model)
        except ModelError:
            return False
        return True

    def estimate(
        self,
        model: str,
        recipe: str | Recipe | None,
        target: str,
        *,
        batch: int = 1,
        context: int = 128,
        arch: AcceleratorArch | None = None,
        kv: str | KvCache | None = None,
        resident_experts: float = 1.0,
        measured: Path | None = None,
    ) -> tuple[Estimate | None, Estimate]:
        """Estimate decode (None for models without it) and prefill of a model on a target, from shapes alone.

        Parameters
        ----------
        kv : str | KvCache | None   Format and compression of the key/value cache, as in 'int4,group=64' or 'gear'.
        resident_experts : float    Share of routed experts in the device's memory.
        measured : Path | None      The user's measured products, for GPUs.

        Raises
        ------
        TargetError                 If the target has no kernel for the recipe's formats.
        ConfigError                 If the measurements cannot be used.
        """
        workload = self.workload(model)
        chosen = recipe if isinstance(recipe, Recipe) or recipe is None else find_recipe(recipe)
        plans: dict[str, LayerPlan] = {} if chosen is None else shape_plans(workload, chosen)
        published = chosen.name if chosen is not None and chosen.name in PUBLISHED else None
        device, options = self.target(target, arch, published)
        cache = KvCache() if kv is None else KvCache.from_text(kv) if isinstance(kv, str) else kv
        anchors = None if measured is None else load_user_anchors(measured)
        options = replace(options, kv=cache, resident_experts=resident_experts, anchors=anchors)
        context = 1 if workload.family == "cnn" else context  # an image is what a CNN's phase counts
        prefill = estimate(workload, plans, device, Phase(kind="prefill", batch=batch, context=context), options)
        if workload.family != "decoder":
            return None, prefill
        return estimate(workload, plans, device, Phase(kind="decode", batch=batch, context=context), options), prefill


def _float_activations(compressed: CompressedModel) -> list[tuple[str, str]]:
    """What the ONNX file cannot say: activations with a scale a token are quantized at run time, so stay float."""
    return [
        (name, f"activations stay float32: {layer.activations.name} with one scale a token has no ONNX form")
        for name, layer in compressed.layers.items()
        if layer.dynamic
    ]
