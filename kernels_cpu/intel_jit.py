"""Intel's sparse JIT as a peer: its library from a wheel, driven by `intel_driver.cpp`, compiled on demand with g++.

The library's kernel takes a panel width and a number of rows a task, `micro_oc`; every choice gets a process, is timed
for a moment, and the fastest stays. Its results are s8 where ours are u8.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.peer_processes import environment_of, made_by

__all__ = ["IntelPair", "driver_of"]

_PANELS = (128, 64, 32)  # the first two that divide the tokens are tried
_ROWS_A_TASK = ("0", "64", "128")  # 0: the library's own choice
_CALLS = 30  # of each choice


def driver_of(cache: Path) -> Path:
    """Return the driver, compiled anew where its source is newer.

    Raises
    ------
    ImportError                  If the library cannot be had or does not run here, or there is no g++.
    """
    python = environment_of("intel", cache)
    source, driver = Path(__file__).with_name("intel_driver.cpp"), python.parent / "intel_driver"
    if driver.exists() and driver.stat().st_mtime >= source.stat().st_mtime:
        return driver
    compiler = shutil.which("g++")
    if compiler is None:
        raise ImportError("its driver needs g++, which is not installed")
    (library,) = python.parent.parent.glob("lib/python3.11/site-packages/intel_extension_for_transformers")
    made_by(
        [
            compiler, "-O1", "-std=c++17", "-o", str(driver), str(source), str(library / "libkernellibs.so"),
            f"-Wl,-rpath,{library}", f"-Wl,-rpath,{library}.libs", "-Wl,--allow-shlib-undefined",
        ]
    )  # fmt: skip
    return driver


class IntelPair:
    """A pair of layers, A [m, k] and B [k, m], on the JIT.

    Parameters
    ----------
    pair : int8[m, k], int8[k, m]             Zeros where nothing is stored; multiples of 4 rows.
    tokens, threads : int
    cache : Path                              Where its environment and weights are.

    Raises
    ------
    ImportError                               If it cannot be had, or takes none of the panel widths.
    """

    name = "intel jit 1.4.2"

    def __init__(self, pair: tuple[NDArray[np.int8], NDArray[np.int8]], tokens: int, threads: int, cache: Path) -> None:
        driver = driver_of(cache)
        weights = cache / "peers" / f"{os.getpid()}-weights.bin"
        weights.write_bytes(pair[0].tobytes() + pair[1].tobytes())
        self._process: subprocess.Popen[str] | None = None
        fastest, reason = float("inf"), f"no panel of {_PANELS} fills {tokens} tokens"
        try:
            for panel in [width for width in _PANELS if tokens % width == 0][:2]:
                for rows in _ROWS_A_TASK:
                    words = [str(number) for number in (*pair[0].shape, tokens, panel)]
                    process = _started([str(driver), *words, rows, str(weights)], threads)
                    try:
                        seconds = min(_answer(process, str(_CALLS)) for _ in range(3))
                    except ImportError as error:
                        reason = str(error)
                        continue
                    slower: subprocess.Popen[str] | None = process
                    if seconds < fastest:
                        slower, self._process, fastest = self._process, process, seconds
                    if slower is not None:
                        slower.communicate(timeout=60)
        finally:
            weights.unlink()
        if self._process is None:
            raise ImportError(reason)

    def pair_seconds(self, calls: int) -> float:
        """Run the pair `calls` times after one for its caches; the wall time of one."""
        if self._process is None:
            raise ImportError("its driver has ended")
        return _answer(self._process, str(calls))

    def close(self) -> None:
        """End the driver."""
        if self._process is not None:
            self._process.communicate(timeout=60)


def _started(command: list[str], threads: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "GLOG_minloglevel": "3"},
    )


def _answer(process: "subprocess.Popen[str]", order: str) -> float:
    """Send an order and read the number it is answered with; the first line of a driver is 'ready'."""
    if process.stdin is None or process.stdout is None:
        raise ImportError("its driver has no pipes")
    try:
        process.stdin.write(order + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if line.strip() == "ready":
            line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        raise ImportError(f"its driver ended with exit code {process.wait(timeout=60)}")
    return float(line)
