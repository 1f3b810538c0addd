"""Explore three recipes on an FPGA and a GPU; the points come back as a pandas frame, the report as files."""

import tempfile
from pathlib import Path

from sparsefab.models.evaluate import Slice
from sparsefab.session import Session

if __name__ == "__main__":  # the recipes are judged in processes of their own
    out = Path(tempfile.mkdtemp())
    part = Slice(samples=200)
    explored = Session().explore(
        "fashion-resnet8", recipes=["w8", "w4", "w8-8of16"], targets=["u280", "h200"], screen=part, full=part, out=out
    )
    columns = ["recipe", "target", "status", "accuracy", "delta", "latency_s", "bits_per_weight"]
    print(explored.frame[columns].to_string(index=False))
    best = explored.best_on("fpga")
    print(f"build {best.recipe} on {best.target}" if best else "nothing runs on the FPGA")
    print(explored.files["report.html"])
