"""`sparsefab VERB ...`: parse, dispatch, and turn errors into one line and an exit code."""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from sparsefab import __version__
from sparsefab.errors import SparseFabError

__all__ = ["build_parser", "main"]

VERBS = (
    "doctor",
    "models",
    "fetch",
    "compress",
    "evaluate",
    "run",
    "emit",
    "table",
    "verify",
    "estimate",
    "explore",
    "report",
    "bench",
    "validate",
)

EXIT_NEGATIVE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """Make the parser; verbs import nothing heavy until they run."""
    parser = argparse.ArgumentParser(
        prog="sparsefab",
        description="From a trained model and a compression recipe to accuracy, cost and verified Verilog.",
    )
    parser.add_argument("--version", action="version", version=f"sparsefab {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        importlib.import_module(f"sparsefab.cli.{name}").add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 negative result, 2 wrong use or bad input, 130 interrupted."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    logging.getLogger("numba").setLevel(logging.WARNING)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        kept = options.verb in ("evaluate", "explore", "fetch")
        print(
            "interrupted" + ("; what was finished is kept, the same command goes on from there" if kept else ""),
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away: nothing to report to
        return 0
    except ModuleNotFoundError as error:
        if options.verbose or (error.name or "").startswith("sparsefab"):
            raise
        print(f"sparsefab {options.verb}: package {error.name} is missing; pip install {error.name}", file=sys.stderr)
        return EXIT_USAGE
    except (SparseFabError, ValueError, TypeError, OSError, MemoryError) as error:
        if options.verbose:
            raise
        print(f"sparsefab {options.verb}: {_one_line(error)}", file=sys.stderr)
        return EXIT_USAGE


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and not isinstance(error, SparseFabError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
