"""What the verbs and a Python user do with a model: open, compress, evaluate, estimate, verify, explore.

from sparsefab.session import Session
session = Session()
result = session.evaluate("char-llama", "w4g32")
print(result.evaluation.delta)
frame = session.explore("char-llama", recipes=["w8", "w4g32"], targets=["u280", "host"], out="runs/first")
"""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.arch import AcceleratorArch, ChainArch
from sparsefab.cost_models.estimate import Estimate, KvCache, LayerPlan, Options, estimate
from sparsefab.cost_models.user_anchors import load_user_anchors
from sparsefab.errors import ModelError, VerificationError
from sparsefab.models.compress import BUILTIN, PUBLISHED, CompressedModel, Recipe, compress, find_recipe
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
from sparsefab.models.evaluate.tasks import ImageTask, TextTask
from sparsefab.models.model import Model
from sparsefab.models.source import Source, resolve
from sparsefab.models.tokenize import load_tokenizer
from sparsefab.models.zoo import get
from sparsefab.reports.plans import shape_plans
from sparsefab.storage import default_cache_dir, write_atomic
from sparsefab.targets import Device, MeasuredCpu, load_cpu_measurements, load_device, measured_device
from sparsefab.workload import DEFAULT_CONTEXT, Phase, Workload

if TYPE_CHECKING:
    import pandas as pd

    from sparsefab.hw.emit import EmitManifest
    from sparsefab.kernels_cpu.inference import Report
    from sparsefab.reports.points import Point
    from sparsefab.reports.render.run_info import RunInfo
    from sparsefab.reports.space import Space
    from sparsefab.reports.study import Studied
    from sparsefab.sim.run import SimulatorName, VerifyReport

__all__ = ["Evaluated", "Explored", "Ran", "Session"]

log = logging.getLogger(__name__)

HOST = "host"
DEFAULT_TARGETS = ("u280", HOST, "h200")
_PROMPT_TOKENS = 32  # of the evaluation data, where a text model is run without a prompt
_MOST_CHAINS = 4  # accelerators of one exploration whose Verilog is written


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluated:
    """A compressed model, what it is worth, and the check of its layers against the reference."""

    compressed: CompressedModel
    evaluation: Evaluation
    agreement: tuple[LayerAgreement, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ran:
    """A compressed model run on this machine's kernels.

    unit : str                  What was counted: token, image or embedding.
    prompt, text : str          Of a language model: what it was given, and what it added.
    metric, value               Of every other model, over the samples that ran.
    """

    compressed: CompressedModel
    unit: str
    report: "Report"
    prompt: str = ""
    text: str = ""
    metric: str = ""
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explored:
    """Points of an exploration and the files of its report."""

    points: "tuple[Point, ...]"
    files: dict[str, Path]
    run: "RunInfo"

    @property
    def frame(self) -> "pd.DataFrame":
        """One row a point."""
        import pandas as pd

        from sparsefab.reports.schema import row

        return pd.DataFrame([row(point) for point in self.points])

    def best_on(self, device: str) -> "Point | None":
        """The point of a device kind that a user would build first: decode if there is one, on the front, loss at most
        1 % of the baseline, least latency; if none is that good, the least loss."""
        from sparsefab.reports.pareto import standings

        ranked = standings(self.points, self.run.objectives, self.run.limits)
        found = [place.point for place in ranked if place.on_front and place.point.device == device]
        found = [p for p in found if p.phase == "decode"] or found
        allowed = [p for p in found if p.loss and p.baseline and p.loss.value <= 0.01 * abs(p.baseline)]
        if allowed:
            # a twentieth of a latency that is only modelled is no reason to lose accuracy
            limit = 1.05 * min(p.latency_s.value for p in allowed if p.latency_s)
            found = [p for p in allowed if p.latency_s and p.latency_s.value <= limit]
        return min(found, key=lambda p: p.loss.value if p.loss else float("inf"), default=None)


class Session:
    """Holds the cache folder and the seed; every method may be called on its own.

    Parameters
    ----------
    cache_dir : Path | None         Models, records and measurements; default ~/.cache/sparsefab.
    seed : int                      Of everything random.
    """

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

    def run(
        self,
        model: str,
        recipe: str | Recipe = "w8",
        *,
        prompt: str | None = None,
        tokens: int = 64,
        samples: int | None = None,
        data: Path | None = None,
        threads: int = 1,
        check: bool = False,
        progress: Progress | None = None,
    ) -> Ran:
        """Run a compressed model on the CPU kernels: greedy text, or a metric over images or documents.

        Parameters
        ----------
        prompt : str | None         Text to continue; None takes the beginning of the evaluation data.
        tokens : int                Of text to add.
        samples : int | None        Images or documents; None takes all.
        data : Path | None          Samples of the user's own, as in `evaluate`.
        check : bool                Compare every output with the bit-true runner's.

        Raises
        ------
        ModelError                  If there is no data for a model that needs it.
        """
        from sparsefab.kernels_cpu.inference import Engine, generate

        source = self.source(model)
        loaded = source.load()
        text = loaded.workload.family == "decoder"
        compressed = self.compress(loaded, recipe)
        task = None
        if not text or prompt is None or compressed.uncalibrated:
            task = task_for(source, loaded, self.cache_dir, Slice(samples=None if text else samples), data)
        if task is not None and compressed.uncalibrated:
            compressed = calibrate(compressed, task.calibration_feeds())
        engine = Engine(compressed, threads=threads, check=check)
        if task is not None and not text:
            value = task.metric(task.records(engine, progress))
            unit = "image" if isinstance(task, ImageTask) else "embedding"
            return Ran(
                compressed=compressed, unit=unit, report=engine.report(), metric=task.protocol.metric, value=value
            )
        tokenizer = load_tokenizer(source.file)
        if isinstance(task, TextTask) and prompt is None:
            prompt = tokenizer.decode([int(code) for code in task.tokens[0, :_PROMPT_TOKENS]])
        given = prompt or ""
        context = int(loaded.metadata.get("context", DEFAULT_CONTEXT))
        added = generate(engine, tokenizer.encode(given), tokens=tokens, context=context, progress=progress)
        return Ran(
            compressed=compressed, unit="token", report=engine.report(), prompt=given, text=tokenizer.decode(added)
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
            "versions": {name: _version(name) for name in ("sparsefab", "numpy", "onnx")},
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
        self, kernels_s: float | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Path:
        """Return the file with this machine's measured peaks, measuring once (about 15 s) if it is not there.

        kernels_s : float | None        Measure anew, and time the kernels for so many seconds.
        """
        from sparsefab import config
        from sparsefab.host import machine_key, measure_host, time_kernels
        from sparsefab.storage import make_folder

        path = self.cache_dir / "measured" / f"cpu-{machine_key()}.toml"
        if kernels_s is not None or not path.is_file():
            log.info("measuring this machine's peaks into %s", path)
            measured = measure_host(datetime.now(UTC).date().isoformat())
            if kernels_s is not None:
                measured = replace(measured, kernels=time_kernels(kernels_s, seed=self.seed, progress=progress))
            make_folder(path.parent)
            write_atomic(path, config.dumps(measured).encode())
        return path

    def workload(self, model: str) -> Workload:
        """Return the layers and shapes of a catalogue model, a file, or a model known by shape alone."""
        from sparsefab.models.zoo import entries
        from sparsefab.workloads import WORKLOADS, load_workload

        known = {entry.name for entry in entries()}
        if model in WORKLOADS and (model not in known or not self._is_here(model)):
            return load_workload(model)
        source = self.source(model)
        return replace(source.load().workload, name=source.name)

    def _is_here(self, model: str) -> bool:
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

    # exploration

    def explore(
        self,
        model: str,
        *,
        out: Path,
        recipes: Sequence[str | Recipe] | None = None,
        space: "Space | Path | None" = None,
        budget: int | None = None,
        targets: Sequence[str] | None = None,
        batch: int = 1,
        context: int = DEFAULT_CONTEXT,
        screen: Slice | None = None,
        full: Slice | None = None,
        data: Path | None = None,
        workers: int = 2,
        scheduler: str | None = None,
        command: Sequence[str] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Explored:
        """Judge recipes, price them on targets, judge the fronts again at full length, and write the report.

        A model that is known by shape alone is priced and not judged.

        Parameters
        ----------
        out : Path                  Folder of the report and of the store: the same call goes on where it was ended.
        recipes                     Names, files or recipes; None: those of the space, or the built-in ones.
        space                       What to explore beyond that, or its TOML file; its batches, contexts and targets
                                    come before the arguments here.
        budget : int | None         At most so many recipes (trials of a search).
        batch, context : int        Of the costs.
        screen, full : Slice        Data of the first look and of the front's second.
        scheduler : str | None      Address of a Dask scheduler; None: `workers` processes of this machine.

        Raises
        ------
        TargetError                 If a target is unknown.
        ConfigError                 If the space is wrong, or no point of it keeps its limits; then the report is there.
        """
        from sparsefab.reports.render.report import write_report
        from sparsefab.reports.search import check_feasible
        from sparsefab.reports.space import Space, load_space
        from sparsefab.reports.store import Store
        from sparsefab.reports.study import study_model, study_shapes
        from sparsefab.reports.sweep import RecipeEvaluator

        folder = space.parent if isinstance(space, Path) else Path()
        given = load_space(space) if isinstance(space, Path) else space
        asked = list(recipes or ()) or (BUILTIN if given is None else ())
        fixed = [r if isinstance(r, Recipe) else find_recipe(r) for r in asked]
        if given is None:
            given = Space(recipes=tuple(recipe.name for recipe in fixed), batch=(batch,), context=(context,))
        else:
            fixed += given.fixed(folder)
        if budget is not None:
            given = replace(given, search=replace(given.search, trials=min(given.search.trials, budget)))
        names = given.targets or targets or DEFAULT_TARGETS
        priced = {name: self.target(name) for name in names}
        store = Store(out / "store")
        shapes = self._shapes(model)
        if shapes is not None:
            studied = study_shapes(
                model,
                shapes,
                given,
                fixed,
                priced,
                store,
                workers=workers,
                scheduler=scheduler,
                budget=budget,
                seed=self.seed,
                progress=progress,
            )
            settings = {"known": "by shape alone"}
        else:
            source = self.source(model)
            defaults = _default_slices(source)
            evaluator = RecipeEvaluator(
                source=source,
                cache_dir=self.cache_dir,
                records=out / "store" / "records",
                data=data,
                screen=screen or defaults[0],
                full=full or defaults[1],
                seed=self.seed,
            )
            studied = study_model(
                evaluator,
                given,
                fixed,
                priced,
                store,
                workers=workers,
                scheduler=scheduler,
                budget=budget,
                progress=progress,
            )
            model = source.name
            settings = {"screen": str(evaluator.screen), "full": str(evaluator.full)}
        settings |= {name: ", ".join(map(str, getattr(given, name))) for name in ("batch", "context")}
        settings |= {"targets": ", ".join(names), "search": given.search.method}
        run = _run_info(model, command, self.seed, studied, given, settings)
        run = replace(run, verilog=self._chains(studied, given, priced, out))
        files = write_report(out, studied.points, run, studied.layers)
        if isinstance(space, Path):
            files["space.toml"] = out / "space.toml"
            write_atomic(files["space.toml"], space.read_bytes())
        if given.limits:
            check_feasible(studied.points, studied.objectives, given.limits)
        return Explored(points=studied.points, files=files, run=run)

    def _shapes(self, model: str) -> Workload | None:
        """The shapes of a model whose weights are not to be had, else None."""
        from sparsefab.workloads import WORKLOADS

        return self.workload(model) if model in WORKLOADS and not self._is_here(model) else None

    def _chains(
        self, studied: "Studied", space: "Space", targets: dict[str, tuple[Device, Options]], out: Path
    ) -> dict[str, str]:
        """Emit the chain of every accelerator on an FPGA's front; manifests by the accelerator's text."""
        from sparsefab.reports.pareto import standings
        from sparsefab.reports.space import accelerator

        ranked = [
            place.point for place in standings(studied.points, studied.objectives, space.limits) if place.on_front
        ]
        wanted = {point.arch: point.target for point in ranked if point.device == "fpga"}
        manifests = {}
        for text, name in list(wanted.items())[:_MOST_CHAINS]:
            manifest = self.emit(out / "verilog", accelerator(targets[name][0], text).chain)
            manifests[text] = str(manifest.path.relative_to(out) / "manifest.json")
        return manifests

    # hardware

    def emit(
        self,
        out: Path,
        arch: ChainArch | None = None,
        primitives: str = "vendor",
        *,
        axis: bool = False,
        part: str | None = None,
        clock_hz: float = 225e6,
        command: Sequence[str] | None = None,
    ) -> "EmitManifest":
        """Write the Verilog of a chain (default: 64 DSPs) and its manifest under `out`.

        axis : AXI4-Stream ports.   part, clock_hz : also write Tcl and XDC for out-of-context synthesis in Vivado.
        """
        from sparsefab.hw.emit import emit

        return emit(
            arch or ChainArch(dsps=64),
            out,
            primitives=primitives,
            axis=axis,
            part=part,
            clock_hz=clock_hz,
            seed=self.seed,
            command=command,
        )

    def verify_chain(
        self,
        arch: ChainArch | None = None,
        *,
        simulator: "SimulatorName" = "verilator",
        beats: int = 500,
        verilog: Path | None = None,
        axis: bool = False,
        unisim: Path | None = None,
    ) -> "VerifyReport":
        """Run random beats that reach the corners, every N of N:16, through a chain's Verilog.

        unisim : a copy of AMD's simulation library: the vendor's primitives are simulated, in Icarus.
        """
        from sparsefab.sim.run import verify_chain

        return verify_chain(
            arch or ChainArch(dsps=64),
            build_dir=self.cache_dir / "sim",
            simulator=simulator,
            seeds=(self.seed,),
            beats=beats,
            modules=_modules(verilog),
            axis=axis,
            unisim=unisim,
        )

    def verify_requantizer(self, *, simulator: "SimulatorName" = "verilator", beats: int = 500) -> "VerifyReport":
        """Run random accumulators and constants through the requantizer's Verilog."""
        from sparsefab.sim.run import verify_requantize

        return verify_requantize(build_dir=self.cache_dir / "sim", simulator=simulator, seed=self.seed, beats=beats)

    def verify_model(
        self,
        model: str,
        recipe: str | Recipe,
        arch: ChainArch | None = None,
        *,
        simulator: "SimulatorName" = "verilator",
        layers: int = 2,
        beats: int = 256,
        verilog: Path | None = None,
        data: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> "dict[str, VerifyReport]":
        """Run a model's own packed weights and activations through the chain's Verilog, layer by layer.

        Parameters
        ----------
        layers : int                The first and the last so many layers that fit the chain, evenly spread.
        beats : int                 Weight beats of each.
        verilog : Path | None       Verilog under test; None emits it.

        Raises
        ------
        TargetError                 If no layer's format runs on the chain.
        """
        from sparsefab.sim.layers import chain_layers
        from sparsefab.sim.run import verify_chain

        chain = arch or ChainArch(dsps=64)
        source = self.source(model)
        loaded = source.load()
        task = task_for(source, loaded, self.cache_dir, Slice(), data)
        compressed = calibrate(self.compress(loaded, recipe), task.calibration_feeds())
        chosen = chain_layers(compressed, task.check_feed(), chain, count=layers)
        reports = {}
        for name, (packed, codes) in chosen.items():
            if progress is not None:
                progress(name)
            reports[name] = verify_chain(
                chain,
                build_dir=self.cache_dir / "sim",
                simulator=simulator,
                packed=packed,
                activations=codes,
                max_beats=beats,
                seeds=(self.seed,),
                modules=_modules(verilog),
            )
        return reports


def _float_activations(compressed: CompressedModel) -> list[tuple[str, str]]:
    """What the ONNX file cannot say: activations with a scale a token are quantized at run time, so stay float."""
    return [
        (name, f"activations stay float32: {layer.activations.name} with one scale a token has no ONNX form")
        for name, layer in compressed.layers.items()
        if layer.dynamic
    ]


def _modules(verilog: Path | None) -> dict[str, str] | None:
    """The Verilog under test by file, as the simulator's runner takes it."""
    if verilog is None:
        return None
    text = verilog.read_text()
    if re.search(r"^\s*DSP48E2\s*#", text, re.MULTILINE) and not re.search(
        r"^\s*module\s+DSP48E2\b", text, re.MULTILINE
    ):
        raise VerificationError(
            f"{verilog} instantiates the vendor's DSP48E2, which open simulators do not have; "
            "verify the twin that `sparsefab emit --behavioural` writes, all other modules are the same text"
        )
    return {"top": text}


def _default_slices(source: Source) -> tuple[Slice, Slice]:
    """First look and second look; images and documents are all used at once."""
    evaluation = get(source.name).evaluation if source.known else ""
    if evaluation == "wikipedia":
        return Slice(windows=16, context=512), Slice(windows=64, context=512)
    if evaluation == "char-text":
        return Slice(windows=64, context=256), Slice(windows=256, context=256)
    return Slice(), Slice()


def _run_info(
    model: str,
    command: Sequence[str] | None,
    seed: int,
    studied: "Studied",
    space: "Space",
    settings: dict[str, str],
) -> "RunInfo":
    from sparsefab.reports.render.run_info import RecipeText, RunInfo

    limits = space.limits
    return RunInfo(
        model=model,
        command=tuple(sys.argv if command is None else command),
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: _version(name) for name in ("sparsefab", "numpy", "numba", "amaranth", "pyosys", "cocotb")},
        settings=settings,
        reference="float" if "float" in {name for name, _ in studied.recipes} else "",
        max_loss_fraction=min(1.0, limits.at_most.get("loss_fraction", 0.01)),
        max_latency_s=limits.at_most.get("latency_s"),
        recipes=tuple(RecipeText(name=name, text=text) for name, text in studied.recipes),
        objectives=studied.objectives,
        limits=limits,
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
