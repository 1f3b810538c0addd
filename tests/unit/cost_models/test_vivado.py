"""Vivado's reports, from small texts of the documented forms: read, merged, refused."""

from pathlib import Path

import pytest

from sparsefab.cost_models.vivado import read_reports
from sparsefab.errors import StorageError
from tests.unit.cost_models.vivado_texts import FLAT, HIERARCHY, TIMING, report


def test_flat_utilization(tmp_path: Path) -> None:
    found = read_reports([report(tmp_path, "flat.rpt", FLAT)])
    assert (found.design, found.part, found.state) == ("top", "xcu280-fsvh2892-2L-e", "Routed")
    assert found.tool == "Vivado v.2023.1"
    assert (found.lut, found.lut_logic, found.lut_memory, found.ff) == (1500, 400, 1100, 5000)
    assert (found.carry8, found.dsp, found.bram36, found.uram) == (61, 64, 2.5, 3)
    assert (found.wns_ns, found.slowest) == (None, None)


def test_utilization_by_hierarchy(tmp_path: Path) -> None:
    found = read_reports([report(tmp_path, "hierarchy.rpt", HIERARCHY)])
    assert (found.lut, found.lut_logic, found.lut_memory, found.ff) == (1510, 410, 1100, 5001)
    assert (found.carry8, found.dsp, found.bram36, found.uram) == (None, 64, 2.5, 3)


def test_names_of_other_families(tmp_path: Path) -> None:
    seven = FLAT.replace("CLB LUTs* ", "Slice LUTs").replace("CLB Registers  ", "Slice Registers")
    versal = (
        FLAT.replace("CARRY8    ", "LOOKAHEAD8")
        .replace("CLB Registers", "Registers    ")
        .replace("DSPs      ", "DSP Slices")
    )
    older = HIERARCHY.replace("  DSP Blocks", "DSP48 Blocks")
    for text in (seven, versal, older):
        found = read_reports([report(tmp_path, "other.rpt", text)])
        assert (found.lut, found.ff, found.dsp) in ((1500, 5000, 64), (1510, 5001, 64))


def test_timing(tmp_path: Path) -> None:
    found = read_reports([report(tmp_path, "timing.rpt", TIMING)])
    assert found.wns_ns == -0.25
    assert [(clock.name, clock.period_ns, clock.wns_ns) for clock in found.clocks] == [
        ("clk", 4.0, -0.25),
        ("slow", 100.0, 95.0),
        ("gen", 20.0, None),
    ]
    assert found.slowest is not None
    assert found.slowest.fmax_hz == pytest.approx(1e9 / 4.25)
    assert found.lut is None


def test_one_clock_without_its_table(tmp_path: Path) -> None:
    text = TIMING.split(
        "------------------------------------------------------------------------------------------------\n| Intra"
    )[0]
    text = "\n".join(line for line in text.splitlines() if not line.strip().startswith(("slow", "gen")))
    found = read_reports([report(tmp_path, "timing.rpt", text)])
    assert [(clock.name, clock.wns_ns) for clock in found.clocks] == [("clk", -0.25)]
    none = read_reports([report(tmp_path, "timing.rpt", text.replace("     -0.250", "         NA"))])
    assert (none.wns_ns, none.slowest) == (None, None)


def test_reports_are_merged_in_any_order(tmp_path: Path) -> None:
    paths = [
        report(tmp_path, "timing.rpt", TIMING, part="u280-fsvh2892"),
        report(tmp_path, "hierarchy.rpt", HIERARCHY),
        report(tmp_path, "flat.rpt", FLAT),
    ]
    found = read_reports(paths)
    assert (found.lut, found.carry8, found.wns_ns, len(found.clocks)) == (1500, 61, -0.25, 3)
    assert read_reports(paths[::-1]) == read_reports(paths[::-1])
    assert read_reports(paths[::-1]).lut == 1500


def test_other_files_are_refused(tmp_path: Path) -> None:
    def refused(message: str, *paths: Path) -> None:
        with pytest.raises(StorageError, match=message):
            read_reports(paths)

    text = tmp_path / "notes.txt"
    text.write_text("| CLB LUTs | 12 |\n")
    refused(r"notes\.txt: is no report of Vivado; report_utilization", text)
    refused(r"absent\.rpt: cannot be read \(No such file", tmp_path / "absent.rpt")
    refused("cannot be read", tmp_path)
    power = report(tmp_path, "power.rpt", "| Total On-Chip Power (W) | 3 |\n", command="report_power -file power.rpt")
    refused(r"power\.rpt: is Vivado's report_power; report_utilization", power)
    flat = report(tmp_path, "flat.rpt", FLAT)
    refused(r"other\.rpt: is about axis_top on xcu280", flat, report(tmp_path, "other.rpt", TIMING, design="axis_top"))
    refused(
        r"other\.rpt: is about top on xcu55c", flat, report(tmp_path, "other.rpt", TIMING, part="xcu55c-fsvh2892-2L-e")
    )
    broken = report(
        tmp_path, "broken.rpt", FLAT.replace("| 1500 |     0 |          0 |", "| many |     0 |          0 |")
    )
    refused(r"broken\.rpt: CLB LUTs must be a number, not 'many'", broken)
    refused("no report given")
