"""Resources: counted DSPs, the shell subtracted, the largest accelerator of each board."""

import pytest

from sparsefab.arch import AcceleratorArch, ChainArch
from sparsefab.cost_models.published import rtl_counts
from sparsefab.cost_models.resources import chain_resources, check_fit, largest_arch, resources, usable
from sparsefab.errors import TargetError
from sparsefab.targets import TARGETS, load_device

BOARDS = [name for name in TARGETS if load_device(name).kind == "fpga"]


def test_usable_subtracts_the_shell_and_the_fill_limit() -> None:
    # Xilinx/finn: SLRs 2736 + 2880 + 2880 DSPs, shell 4 DSPs and 107,629 LUTs, limits 0.75 and 0.62
    have = usable(load_device("u280"))
    assert have["dsp"] == pytest.approx((8496 - 4) * 0.75)
    assert have["lut"] == pytest.approx((400800 + 382080 + 380640 - 107629) * 0.62)


def test_dsps_are_counted_and_luts_follow_the_chains() -> None:
    def arch(chains: int) -> AcceleratorArch:
        return AcceleratorArch(
            cores=3, chains_per_core=chains, chain=ChainArch(dsps=64), clock_hz=225e6, hbm_channels=24
        )

    one, two = resources(arch(10)), resources(arch(11))
    assert two["dsp"].value - one["dsp"].value == 3 * (64 + 2 + 2)  # group scales, requantizers
    assert two["dsp"].low == two["dsp"].high
    per_dsp = (two["lut"].value - one["lut"].value) / (3 * 64)
    assert 45 <= per_dsp <= 60  # a chain 28.5, accumulators 3.9, requantizers 10, a dequantizer 10.5, by Yosys


@pytest.mark.parametrize("counted", rtl_counts().synthesis.counted)
def test_chains_against_synthesis(counted: tuple[int, int, int]) -> None:
    dsps, *sites = counted
    # LUT and FF within 10 %, bounds holding the synthesized count
    counts = chain_resources(ChainArch(dsps=dsps))
    assert counts["dsp"].value == dsps
    for kind, synthesized in zip(("lut", "ff"), sites, strict=True):
        assert counts[kind].value == pytest.approx(synthesized, rel=0.04)
        assert counts[kind].low <= synthesized <= counts[kind].high


@pytest.mark.parametrize("name", BOARDS)
def test_the_largest_accelerator_fits_and_the_next_does_not(name: str) -> None:
    device = load_device(name)
    arch = largest_arch(device)
    check_fit(device, arch)
    assert device.fpga is not None
    assert arch.hbm_channels <= device.memory.channels
    more = AcceleratorArch(
        cores=arch.cores, chains_per_core=arch.chains_per_core + 1, chain=arch.chain, clock_hz=arch.clock_hz,
        hbm_channels=arch.hbm_channels, region_dsps=10**6,
    )  # fmt: skip
    with pytest.raises(TargetError, match=r"does not fit one region|the accelerator needs"):
        check_fit(device, more)


def test_a_gpu_has_no_blocks() -> None:
    with pytest.raises(TargetError, match="h200 is not an FPGA"):
        usable(load_device("h200"))
    with pytest.raises(TargetError, match="h200 is not an FPGA"):
        largest_arch(load_device("h200"))
