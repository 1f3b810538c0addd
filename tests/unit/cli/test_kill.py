"""`sparsefab explore` killed at a random moment loses no finished evaluation."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sparsefab.cli.main", "explore", "fashion-resnet8", "--samples", "200",
               "--budget", "8", "--target", "u280", "--no-verify", "-o", str(out)]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


def finished(out: Path) -> dict[str, int]:
    """Evaluations on disk with the time they were written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("store/evaluations/*.parquet")}


def test_killed_and_run_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    seed = int.from_bytes(os.urandom(4))
    pause = random.Random(seed)
    before: dict[str, int] = {}
    for _ in range(3):
        process = start(out)
        deadline = time.monotonic() + 90
        while len(finished(out)) <= len(before) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(pause.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(1.0)  # workers notice that their driver is gone
        after = finished(out)
        assert before.items() <= after.items(), f"seed {seed}: a finished evaluation was lost or made again"
        before = after
    assert before, f"seed {seed}: nothing was finished before the kills"
    assert start(out).wait() == 0
    assert before.items() <= finished(out).items(), f"seed {seed}"
    assert len(finished(out)) == 8
    assert (out / "report.html").stat().st_size > 0
