"""Explore recipes on targets and write the report: `Session.explore` and what it returns."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.cost_models.estimate import Options
from sparsefab.models.compress import BUILTIN, Recipe, find_recipe
from sparsefab.models.evaluate import Slice
from sparsefab.models.source import Source
from sparsefab.models.zoo import get
from sparsefab.session.versions import installed
from sparsefab.storage import write_atomic
from sparsefab.targets import Device
from sparsefab.workload import DEFAULT_CONTEXT, Workload

if TYPE_CHECKING:
    import pandas as pd

    from sparsefab.reports.points import Point
    from sparsefab.reports.render.run_info import RunInfo
    from sparsefab.reports.space import Space
    from sparsefab.reports.study import Studied
    from sparsefab.session.session import Session

__all__ = ["Explored", "explore"]

HOST = "host"
DEFAULT_TARGETS = ("u280", HOST, "h200")
_MOST_CHAINS = 4  # accelerators of one exploration whose Verilog is written


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


def explore(
    self: "Session",
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
    shapes = _shapes(self, model)
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
        settings = {"screen": _words(evaluator.screen), "full": _words(evaluator.full)}
    settings |= {
        name: ", ".join(map(str, getattr(given, name))) for name in ("batch", "context", "kv") if getattr(given, name)
    }
    settings |= {"targets": ", ".join(names), "search": given.search.method}
    run = _run_info(model, command, self.seed, studied, given, settings)
    run = replace(run, verilog=_chains(self, studied, given, priced, out))
    files = write_report(out, studied.points, run, studied.layers)
    if isinstance(space, Path):
        files["space.toml"] = out / "space.toml"
        write_atomic(files["space.toml"], space.read_bytes())
    if given.limits:
        check_feasible(studied.points, studied.objectives, given.limits)
    return Explored(points=studied.points, files=files, run=run)


def _shapes(self: "Session", model: str) -> Workload | None:
    """The shapes of a model whose weights are not to be had, else None."""
    from sparsefab.workloads import WORKLOADS

    return self.workload(model) if model in WORKLOADS and not self.is_here(model) else None


def _chains(
    self: "Session", studied: "Studied", space: "Space", targets: dict[str, tuple[Device, Options]], out: Path
) -> dict[str, str]:
    """Emit the chain of every accelerator on an FPGA's front; manifests by the accelerator's text."""
    from sparsefab.reports.pareto import standings
    from sparsefab.reports.space import accelerator

    ranked = [place.point for place in standings(studied.points, studied.objectives, space.limits) if place.on_front]
    wanted = {point.arch: point.target for point in ranked if point.device == "fpga"}
    manifests = {}
    for text, name in list(wanted.items())[:_MOST_CHAINS]:
        manifest = self.emit(out / "verilog", accelerator(targets[name][0], text).chain)
        manifests[text] = str(manifest.path.relative_to(out) / "manifest.json")
    return manifests


def _default_slices(source: Source) -> tuple[Slice, Slice]:
    """First look and second look; images and documents are all used at once."""
    evaluation = get(source.name).evaluation if source.known else ""
    if evaluation == "wikipedia":
        return Slice(windows=16, context=512), Slice(windows=64, context=512)
    if evaluation == "char-text":
        return Slice(windows=64, context=256), Slice(windows=256, context=256)
    return Slice(), Slice()


def _words(part: Slice) -> str:
    """A slice of the data as the report says it."""
    counts = ((part.windows, "windows"), (part.context, "tokens a window"), (part.samples, "samples"))
    return ", ".join(f"{count} {what}" for count, what in counts if count is not None) or "all of the data"


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
        versions={name: installed(name) for name in ("sparsefab", "numpy", "numba", "amaranth", "pyosys", "cocotb")},
        settings=settings,
        reference="float" if "float" in {name for name, _ in studied.recipes} else "",
        max_loss_fraction=min(1.0, limits.at_most.get("loss_fraction", 0.01)),
        max_latency_s=limits.at_most.get("latency_s"),
        recipes=tuple(RecipeText(name=name, text=text) for name, text in studied.recipes),
        objectives=studied.objectives,
        limits=limits,
    )
