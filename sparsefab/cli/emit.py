"""`sparsefab emit`: write the Verilog of a block, its testbench, a manifest and, if asked, its resources."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsefab.cli.options import Verbs, add_common, positive

if TYPE_CHECKING:
    from sparsefab.hw.emit import Block

__all__ = ["add_parameters", "add_parser", "block_parameters", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("emit", help="write Verilog", description=__doc__)
    parser.add_argument("block", nargs="?", default="chain", help="what to emit (default: chain); see --list")
    parser.add_argument("--list", action="store_true", help="list the blocks with their parameters")
    add_parameters(parser)
    parser.add_argument(
        "--behavioural",
        action="store_true",
        help="behavioural primitives for any simulator, instead of the vendor's for synthesis",
    )
    parser.add_argument("--axis", action="store_true", help="AXI4-Stream ports: aclk, aresetn, tdata, tlast")
    parser.add_argument("--part", metavar="PART", help="also write synth.tcl and clock.xdc for this Vivado part")
    parser.add_argument("--clock-mhz", type=float, default=225.0, metavar="F", help="of clock.xdc (default: 225)")
    parser.add_argument("--no-testbench", action="store_true", help="leave out top_tb.v and its vectors")
    parser.add_argument("--resources", action="store_true", help="map with Yosys and count LUT, FF, DSP")
    parser.add_argument("-o", "--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    add_common(parser, seed=True)
    parser.set_defaults(run=run)


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Add what gives a block its parameters."""
    parser.add_argument("--dsps", type=positive, metavar="L", help="DSPs in a chain (default: 64)")
    parser.add_argument("--arch", type=Path, metavar="FILE", help="the block's parameters in TOML")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one parameter, after --arch, such as lanes=1 or chain.dsps=16; repeatable",
    )


def block_parameters(options: argparse.Namespace, block: "Block") -> Any:
    """Read a block's parameters: its defaults or --arch, then --dsps and --set."""
    import tomllib

    from sparsefab import config

    kind = type(block.default)
    given = block.default if options.arch is None else config.load(options.arch, kind)
    if options.arch is not None and options.dsps is not None:
        raise ValueError("give --arch or --dsps, not both")
    settings = [tuple(text.partition("=")) for text in options.set]
    if options.dsps is not None:
        settings.insert(0, (_path_of_dsps(block), "=", str(options.dsps)))
    if not settings:
        return given
    table = tomllib.loads(config.dumps(given))
    for name, equals, text in settings:
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, not {name!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a word needs no quotes
        *parents, last = name.strip().split(".")
        inner: Any = table
        for parent in parents:
            inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise ValueError(f"--set {name.strip()}: {'.'.join(parents)} has no parameters of its own")
        inner[last] = value
    return config.build(table, kind, source=f"parameters of {block.name}")


def _path_of_dsps(block: "Block") -> str:
    """The one parameter of a block that counts a chain's DSPs, wherever it is nested."""
    names = list(_flat(block.default))
    for name in names:
        if name.split(".")[-1] == "dsps":
            return name
    raise ValueError(f"--dsps: block {block.name} has no chain; its parameters are {', '.join(names)}")


def _flat(parameters: object) -> dict[str, str]:
    """{dotted name: value as --set takes it} of a block's parameters."""
    import json
    import tomllib

    from sparsefab import config

    found: dict[str, str] = {}

    def visit(table: dict[str, Any], prefix: str) -> None:
        for name, value in table.items():
            if isinstance(value, dict):
                visit(value, f"{prefix}{name}.")
            else:
                found[prefix + name] = json.dumps(value)

    visit(tomllib.loads(config.dumps(parameters)), "")
    return found


def run(options: argparse.Namespace) -> int:
    """Emit, and print where and how large."""
    from sparsefab.cli.output import print_json, si
    from sparsefab.hw.blocks import BLOCKS
    from sparsefab.session import Session

    if options.list:
        return _list(options)
    block = BLOCKS.get(options.block)
    parameters = block_parameters(options, block)
    manifest = Session(options.cache_dir, options.seed).emit(
        options.out,
        parameters,
        "behavioural" if options.behavioural else "vendor",
        block=options.block,
        axis=options.axis,
        part=options.part,
        clock_hz=options.clock_mhz * 1e6,
        testbench=not options.no_testbench,
    )
    result: dict[str, object] = {
        "block": block.name,
        "path": str(manifest.path),
        "verilog": str(manifest.verilog),
        "sha256": manifest.sha256,
        "verilog_bytes": manifest.verilog_bytes,
        "modules": list(manifest.modules),
        "files": manifest.files,
        "config": manifest.config,
    }
    if options.resources:
        from dataclasses import asdict

        from sparsefab.hw.synthesize import synthesize

        counted = synthesize(block.modules(parameters))
        per_dsp = counted.lut_per_dsp if counted.dsp else None
        result["resources"] = {**asdict(counted), "lut": counted.lut, "lut_per_dsp": per_dsp}
    if options.json:
        print_json(result)
        return 0
    print(manifest.verilog)
    print(f"  {si(float(manifest.verilog_bytes), 'B')}, {len(manifest.modules)} modules, sha256 {manifest.sha256[:16]}")
    if manifest.files:
        print(f"  beside it: {', '.join(manifest.files)}")
    resources = result.get("resources")
    if isinstance(resources, dict):
        share = f" ({resources['lut_per_dsp']:.1f} a DSP)" if resources["dsp"] else ""
        print(
            f"  {resources['dsp']} DSP48E2, {resources['lut']} LUT sites{share}, "
            f"{resources['ff']} FF, {resources['carry4']} CARRY4; {resources['tool']}, an upper bound, not placed"
        )
    return 0


def _list(options: argparse.Namespace) -> int:
    from sparsefab.cli.output import print_json, print_table
    from sparsefab.hw.blocks import BLOCKS

    blocks = [BLOCKS.get(name) for name in BLOCKS]
    if options.json:
        print_json([{"block": b.name, "description": b.description, "parameters": _flat(b.default)} for b in blocks])
        return 0
    print_table(
        "Blocks",
        ["block", "what", "parameters (defaults)"],
        [[b.name, b.description, ", ".join(map("=".join, _flat(b.default).items()))] for b in blocks],
    )
    return 0
