"""CPU kernels timed on machines of our own use, as they ship: measured anchors for the validation page and the models.

    data/cpu_NAME.toml      what `sparsefab bench cpu --calibrate` wrote on a machine, one line a sample

A machine's file becomes a recording by

    python -m sparsefab.cost_models.cpu_recordings FILE.toml NAME --features "AVX512-VNNI, ..."
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sparsefab import config
from sparsefab.storage import write_atomic
from sparsefab.targets import CpuPeaks, KernelSample, MeasuredCpu, load_cpu_measurements

__all__ = ["Recording", "recording_of", "recordings"]

DATA = Path(__file__).resolve().parent / "data"
Samples = tuple[tuple[int, int, int, float, int, float], ...]
_Timed = Literal["dense_int8", "block_4x1", "dequantize_int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One machine's run.

    features : str                  Instructions and caches that decide its kernels.
    dense_int8, block_4x1, dequantize_int8 : (rows, columns, tokens, density, threads, seconds) a sample.
    """

    name: str
    title: str
    features: str
    date: str
    source: str
    licence: str
    isa: str
    cores: int
    memory_bytes: int
    last_level_cache_bytes: int | None
    peaks: tuple[CpuPeaks, ...]
    dense_int8: Samples
    block_4x1: Samples
    dequantize_int8: Samples

    @property
    def measured(self) -> MeasuredCpu:
        """The same as a measured machine."""
        timed: dict[_Timed, Samples] = {
            "dense_int8": self.dense_int8,
            "block_4x1": self.block_4x1,
            "dequantize_int8": self.dequantize_int8,
        }
        kernels = []
        for kernel, samples in timed.items():
            for rows, columns, tokens, density, threads, seconds in samples:
                kernels.append(KernelSample(kernel=kernel, rows=rows, columns=columns, tokens=tokens, density=density,
                                            threads=threads, seconds=seconds))  # fmt: skip
        return MeasuredCpu(
            name=self.title, date=self.date, isa=self.isa, cores=self.cores, memory_bytes=self.memory_bytes,
            peaks=self.peaks, last_level_cache_bytes=self.last_level_cache_bytes, kernels=tuple(kernels),
        )  # fmt: skip


@lru_cache(maxsize=1)
def recordings() -> tuple[Recording, ...]:
    """Return the shipped recordings, read once, by name."""
    return tuple(config.load(path, Recording) for path in sorted(DATA.glob("cpu_*.toml")))


def recording_of(measured: MeasuredCpu, name: str, features: str) -> Recording:
    """Make a machine's measurements a recording; times to five digits."""

    def samples(kernel: _Timed) -> Samples:
        return tuple(
            (s.rows, s.columns, s.tokens, float(f"{s.density:.6g}"), s.threads, float(f"{s.seconds:.5g}"))
            for s in measured.kernels
            if s.kernel == kernel
        )

    return Recording(
        name=name, title=measured.name, features=features, date=measured.date, isa=measured.isa, cores=measured.cores,
        source="own measurements by `sparsefab bench cpu --calibrate`, thread time, weights hot", licence="Apache-2.0",
        memory_bytes=measured.memory_bytes, last_level_cache_bytes=measured.last_level_cache_bytes,
        peaks=measured.peaks, dense_int8=samples("dense_int8"), block_4x1=samples("block_4x1"),
        dequantize_int8=samples("dequantize_int8"),
    )  # fmt: skip


def main() -> None:
    """Write a recording into the shipped data."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path, help="what `sparsefab bench cpu --calibrate` wrote")
    parser.add_argument("name", help="of the recording, a word")
    parser.add_argument("--features", required=True, help="instructions and caches")
    options = parser.parse_args()
    recording = recording_of(load_cpu_measurements(options.file), options.name, options.features)
    write_atomic(DATA / f"cpu_{options.name}.toml", config.dumps(recording).encode())


if __name__ == "__main__":
    main()
