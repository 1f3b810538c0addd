"""How fast estimates, sweeps and reports are, beside their goals: the last part of the validation page.

Times are of this machine, while it did whatever else it did.
"""

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from sparsefab.cost_models.batch import PriceSheet
from sparsefab.cost_models.estimate import LayerPlan, Options
from sparsefab.cost_models.validate_rows import Row
from sparsefab.formats.catalog import get_format
from sparsefab.formats.tensors import TensorSpec
from sparsefab.reports.points import Point
from sparsefab.reports.render.report import write_report
from sparsefab.reports.render.run_info import RunInfo
from sparsefab.reports.space import Family, RuleChoices, Space
from sparsefab.reports.store import Store
from sparsefab.reports.study import study_shapes
from sparsefab.targets import load_device
from sparsefab.workload import Phase
from sparsefab.workloads import load_workload

__all__ = ["find_chromium", "page_ready_s", "sweep_space", "validate_speed"]

MODEL, TARGETS = "llama2-7b", ("u280", "epyc_9654", "h200")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FORMATS = ("int2", "int3", "int4", "int4sym", "int5", "int6", "int8")
_RECIPES, _BROWSER_TIMEOUT_S = 500, 120


def sweep_space() -> Space:
    """10,080 points: 280 recipes (two rules) on three targets at two batches, three contexts, two phases."""
    every = RuleChoices(weights=_FORMATS, pattern=("dense", "2:4", "4:8", "8:16"))
    down = RuleChoices(
        layers=("*down_proj", "lm_head"), weights=("int4", "int8"), pattern=("dense", "2:4", "4:8", "8:16", "1:4")
    )
    return Space(
        families=(Family(name="int", rules=(every, down)),), targets=TARGETS, batch=(1, 8), context=(128, 1024, 4096)
    )


def find_chromium() -> str | None:
    """The browser's path, or None."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def page_ready_s(browser: str, page: Path) -> float:
    """Open a report in a headless Chromium; seconds until its script is done, as the page itself counts them.

    Raises
    ------
    RuntimeError            If the page did not get ready.
    """
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]  # fmt: skip
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_BROWSER_TIMEOUT_S, check=False)
    found = re.search(r'data-ready-ms="(\d+)"', ran.stdout)
    if found is None:
        raise RuntimeError(f"{browser} did not open {page}: {ran.stderr[-500:]}")
    return int(found[1]) * 1e-3


def validate_speed(workers: int = 2) -> list[Row]:
    """Rows of the rate of estimates, the time of a sweep of 10,000 points, and of opening its report."""
    points, seconds = _sweep(workers)
    rows = [
        Row(part="speed", name="estimates on one core, batched (layer, recipe, target)", metric="a second",
            value=_rate(), goal=50_000, samples=1, at_most=False),
        Row(part="speed", name=f"sweep of {MODEL}, {', '.join(TARGETS)}", metric="seconds", value=seconds, goal=30.0,
            samples=len(points)),
    ]  # fmt: skip
    browser = find_chromium()
    opened = None
    if browser is not None:
        with tempfile.TemporaryDirectory() as folder:
            run = RunInfo(model=MODEL, command=("sparsefab", "validate", "speed"), seed=0, created="")
            files = write_report(Path(folder), points, run)
            opened = min(page_ready_s(browser, files["report.html"]) for _ in range(2))
    note = "" if browser is not None else f"not measured here: none of {', '.join(_BROWSERS)} is on the path"
    rows.append(Row(part="speed", name="opening its report in a browser", metric="seconds", value=opened, goal=2.0,
                    samples=len(points), note=note))  # fmt: skip
    return rows


def _rate() -> float:
    """Layers priced a second of one core, the sheet's own prices included."""
    model = load_workload(MODEL)
    recipes = [
        {layer.name: LayerPlan(spec=TensorSpec.of(*layer.weight_shape, get_format(name)), activation="int8")
         for layer in model.weight_layers()}
        for name in ("int8", "int6", "int4")
    ]  # fmt: skip
    layers = len(list(model.weight_layers()))
    choices = np.random.default_rng(0).integers(0, len(recipes), (_RECIPES, layers))
    begin = time.process_time()
    for target in TARGETS:
        PriceSheet(model, load_device(target), Phase(kind="decode")).totals(recipes, choices)
    return len(TARGETS) * choices.size / (time.process_time() - begin)


def _sweep(workers: int) -> tuple[list[Point], float]:
    targets = {name: (load_device(name), Options()) for name in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        found = study_shapes(
            MODEL, load_workload(MODEL), sweep_space(), [], targets, Store(Path(folder) / "store"), workers=workers
        )
        return list(found.points), time.perf_counter() - begin
