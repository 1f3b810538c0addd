"""`sparsefab emit`: write the Verilog of a sparse DSP chain, with a manifest and, if asked, its resources."""

import argparse
from pathlib import Path

from sparsefab.arch import ChainArch
from sparsefab.cli.options import Verbs, add_common, positive

__all__ = ["add_parser", "chain_arch", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("emit", help="write Verilog", description=__doc__)
    parser.add_argument("block", nargs="?", choices=["chain"], default="chain", help="what to emit (default: chain)")
    parser.add_argument("--dsps", type=positive, metavar="L", help="DSPs in the chain (default: 64)")
    parser.add_argument("--arch", type=Path, metavar="FILE", help="chain parameters in TOML (arch.py: ChainArch)")
    parser.add_argument(
        "--behavioural",
        action="store_true",
        help="behavioural primitives for any simulator, instead of the vendor's for synthesis",
    )
    parser.add_argument("--axis", action="store_true", help="AXI4-Stream ports: aclk, aresetn, tdata, tlast")
    parser.add_argument("--part", metavar="PART", help="also write synth.tcl and clock.xdc for this Vivado part")
    parser.add_argument("--clock-mhz", type=float, default=225.0, metavar="F", help="of clock.xdc (default: 225)")
    parser.add_argument("--resources", action="store_true", help="map with Yosys and count LUT, FF, DSP")
    parser.add_argument("-o", "--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    add_common(parser, seed=True)
    parser.set_defaults(run=run)


def chain_arch(options: argparse.Namespace) -> ChainArch:
    """Read the chain's parameters from --arch or --dsps."""
    from sparsefab import config

    if options.arch is not None and options.dsps is not None:
        raise ValueError("give --arch or --dsps, not both")
    if options.arch is not None:
        return config.load(options.arch, ChainArch)
    return ChainArch(dsps=options.dsps or 64)


def run(options: argparse.Namespace) -> int:
    """Emit, and print where and how large."""
    from sparsefab.cli.output import print_json, si
    from sparsefab.session import Session

    arch = chain_arch(options)
    primitives = "behavioural" if options.behavioural else "vendor"
    manifest = Session(options.cache_dir, options.seed).emit(
        options.out, arch, primitives, axis=options.axis, part=options.part, clock_hz=options.clock_mhz * 1e6
    )
    result: dict[str, object] = {
        "path": str(manifest.path),
        "verilog": str(manifest.verilog),
        "sha256": manifest.sha256,
        "verilog_bytes": manifest.verilog_bytes,
        "modules": list(manifest.modules),
        "config": manifest.config,
    }
    if options.resources:
        from dataclasses import asdict

        from sparsefab.hw.emit import chain_verilog
        from sparsefab.hw.synthesize import synthesize

        counted = synthesize(chain_verilog(arch, primitives="vendor"))
        result["resources"] = {**asdict(counted), "lut": counted.lut, "lut_per_dsp": counted.lut_per_dsp}
    if options.json:
        print_json(result)
        return 0
    print(manifest.verilog)
    print(f"  {si(float(manifest.verilog_bytes), 'B')}, {len(manifest.modules)} modules, sha256 {manifest.sha256[:16]}")
    resources = result.get("resources")
    if isinstance(resources, dict):
        print(
            f"  {resources['dsp']} DSP48E2, {resources['lut']} LUT sites ({resources['lut_per_dsp']:.1f} a DSP), "
            f"{resources['ff']} FF, {resources['carry4']} CARRY4; {resources['tool']}, an upper bound, not placed"
        )
    return 0
