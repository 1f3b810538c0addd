"""Options that verbs share, and what they mean."""

import argparse
from pathlib import Path
from typing import Any

from sparsefab.storage import default_cache_dir

__all__ = ["Verbs", "add_common", "add_data", "natural", "positive"]

Verbs = Any  # argparse's sub-parser action, which has no public name


def add_common(parser: argparse.ArgumentParser, *, json: bool = True, seed: bool = False) -> None:
    """Add -v, --cache-dir, and --json and --seed where a verb has results or randomness."""
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, and show a traceback on errors")
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=default_cache_dir(),
        metavar="DIR",
        help="where models and finished work are kept (default: %(default)s)",
    )
    if json:
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
    if seed:
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add what says on which data a model is judged."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="your own evaluation data: a text, or an .npz with `inputs` and `labels`",
    )
    parser.add_argument("--windows", type=positive, metavar="N", help="windows of a text")
    parser.add_argument("--context", type=positive, metavar="N", help="tokens a window")
    parser.add_argument("--samples", type=positive, metavar="N", help="images or documents")


def positive(text: str) -> int:
    """Read a positive integer for argparse."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, not {value}")
    return value


def natural(text: str) -> int:
    """Read a whole number of 0 or more for argparse."""
    return 0 if text == "0" else positive(text)
