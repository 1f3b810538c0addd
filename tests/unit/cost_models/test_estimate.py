"""Estimates of all kinds of target: sums, bounds, labels, refusals, JSON; and how they move when the work does."""

import json
import math
from dataclasses import replace

import pytest

from sparsefab.arch import AcceleratorArch, ChainArch
from sparsefab.cost_models.assumptions import assumptions
from sparsefab.cost_models.estimate import (
    Estimate,
    Figure,
    KvCache,
    LayerPlan,
    Options,
    Provenance,
    estimate,
    report_json,
)
from sparsefab.cost_models.validate import fit_memory_efficiency, flightllm_plans
from sparsefab.errors import TargetError
from sparsefab.formats.catalog import get_format
from sparsefab.formats.layout import storage_layout
from sparsefab.formats.sparsity import parse_pattern
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import CpuPeaks, KernelSample, MeasuredCpu, load_device, measured_device
from sparsefab.workload import Phase, Workload
from sparsefab.workloads import load_workload, workload_names

DECODE, PREFILL = Phase(kind="decode", context=512), Phase(kind="prefill", context=128)
HOST = MeasuredCpu(
    name="box", date="2026-11-22", isa="avx512_vnni", cores=2, memory_bytes=2**34, last_level_cache_bytes=2**25,
    peaks=(CpuPeaks(threads=1, int8_op_per_s=0.76e12, fp32_op_per_s=176e9, memory_bytes_per_s=16e9),
           CpuPeaks(threads=2, int8_op_per_s=1.46e12, fp32_op_per_s=350e9, memory_bytes_per_s=31e9)),
)  # fmt: skip


def plans(workload: Workload, fmt: str, activation: str, group: int | None = None, pattern: str = "dense"
          ) -> dict[str, LayerPlan]:  # fmt: skip
    return {
        layer.name: LayerPlan(
            spec=TensorSpec.of(*layer.weight_shape, get_format(fmt), parse_pattern(pattern), group),
            activation=activation,
        )
        for layer in workload.weight_layers()
    }


def cost(target: str, fmt: str = "int8", activation: str = "int8", phase: Phase = DECODE, model: str = "llama2-7b",
         group: int | None = None, pattern: str = "dense", options: Options | None = None) -> Estimate:  # fmt: skip
    workload = load_workload(model)
    if target == "host":
        own = measured_device(HOST)
        return estimate(workload, plans(workload, fmt, activation, group, pattern), own, phase, Options(measured=HOST))
    return estimate(workload, plans(workload, fmt, activation, group, pattern), load_device(target), phase, options)


TARGETS = ["u280", "u50", "u55c", "u200", "u250", "v80", "vhk158", "a10", "a100", "rtx3090", "a6000", "l4", "l40s",
           "h100", "h200", "b200", "gb200", "host", "xeon_8375c", "epyc_9654"]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("phase", [DECODE, PREFILL])
def test_figures_are_ordered_and_add_up(target: str, phase: Phase) -> None:
    result = cost(target, phase=phase)
    figures = [result.latency_s, result.throughput_tokens_per_s, result.energy_per_token_j, result.power_w]
    for figure in figures:
        assert 0 < figure.low <= figure.value <= figure.high < math.inf
    assert result.latency_s.value == pytest.approx(sum(layer.latency_s.value for layer in result.layers))
    assert result.throughput_tokens_per_s.value * result.latency_s.value == pytest.approx(phase.tokens)
    assert result.energy_per_token_j.value * phase.tokens == pytest.approx(
        result.power_w.value * result.latency_s.value
    )
    assert result.static_energy_per_token_j <= result.energy_per_token_j.value
    assert len(result.layers) == len(load_workload("llama2-7b").layers) - 1  # the embedding is looked up
    # no better than the board's bandwidth allows
    limit = load_device(target).memory.bandwidth_bytes_per_s.value if target != "host" else 31e9
    if phase.kind == "decode":
        stored = sum(layer.memory_bytes for layer in result.layers if layer.kind == "linear")
        assert result.latency_s.value > stored / limit
    for layer in result.layers:
        assert layer.bound in layer.terms_s
        assert min(layer.terms_s.values()) >= 0


@pytest.mark.parametrize("model", workload_names())
@pytest.mark.parametrize("target", ["u280", "h200", "host"])
def test_every_workload_has_a_price(model: str, target: str) -> None:
    result = cost(target, phase=Phase(kind="prefill", context=1, batch=4), model=model)
    assert result.latency_s.value > 0
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("target", ["u280", "a100", "h200", "host", "epyc_9654"])
def test_more_work_costs_more(target: str) -> None:
    contexts = [cost(target, phase=Phase(kind="decode", context=c)).latency_s.value for c in (128, 1024, 8192)]
    assert contexts == sorted(contexts)
    batches = [cost(target, phase=Phase(kind="decode", batch=b)) for b in (1, 8, 64)]
    latencies = [item.latency_s.value for item in batches]
    assert latencies == sorted(latencies)
    rates = [item.throughput_tokens_per_s.value for item in batches]
    assert rates == sorted(rates)
    prefill = [cost(target, phase=Phase(kind="prefill", context=c)).latency_s.value for c in (16, 128, 1024)]
    assert prefill == sorted(prefill)


def test_memory_counts_packed_bytes_with_their_metadata() -> None:
    workload, own = load_workload("smollm2-135m"), plans(load_workload("smollm2-135m"), "int4", "int8", 32, "8:16")
    result = estimate(workload, own, load_device("u280"), DECODE)
    for layer in result.layers:
        plan = own.get(layer.name)
        if plan is not None and plan.spec is not None:
            assert layer.memory_bytes == sum(storage_layout(plan.spec).section_bytes(plan.spec).values())
    table, cache = 49152 * 576, 2 * 512 * 3 * 64 * 30
    stored = sum(layer.memory_bytes for layer in result.layers if layer.kind == "linear")
    assert result.memory_bytes.value == stored + table + cache


def test_int4_weights_gain_at_decode_and_not_at_prefill() -> None:
    # in the measured tables weight-only int4 loses its advantage from about 256 rows on, whatever the roofline says
    long, workload = Phase(kind="prefill", context=2048), load_workload("llama2-7b")
    for target in ("a100", "l40s"):
        gain = {
            phase.kind: estimate(workload, {}, load_device(target), phase).latency_s.value
            / cost(target, "int4", "float", phase, group=128).latency_s.value
            for phase in (DECODE, long)
        }
        assert gain["decode"] > 1.5
        assert 0.8 < gain["prefill"] < 1.15


def test_sparsity_pays_where_a_kernel_exists() -> None:
    dense, half = cost("u280"), cost("u280", pattern="8:16 pairs")
    assert half.terms_s["compute"] == pytest.approx(dense.terms_s["compute"] / 2, rel=0.1)
    # rows with positions of their own share no DSP at one token: half the products, at half the rate
    alone = cost("u280", pattern="8:16")
    assert alone.terms_s["compute"] == pytest.approx(dense.terms_s["compute"], rel=0.1)
    assert half.terms_s["hbm"] < alone.terms_s["hbm"] < dense.terms_s["hbm"]
    a100 = cost("a100", pattern="8:16")  # no such kernel: priced as dense
    assert a100.latency_s == cost("a100").latency_s
    assert {layer.support.value for layer in a100.layers if layer.kind == "linear"} == {"emulated"}
    block, plain = cost("host", pattern="4x1@0.2", phase=PREFILL), cost("host", phase=PREFILL)
    assert 2.0 < plain.terms_s["compute"] / block.terms_s["compute"] < 5.0


@pytest.mark.parametrize(("target", "fmt", "activation", "words"), [
    ("u280", "int4", "float", "layers.0.self_attn.q_proj: absent on u280: float activations"),
    ("u280", "e3m2", "int8", "absent on u280: e3m2 values need more than 8 bits"),
    ("u280", "e2m1", "e4m3", "absent on u280: e4m3 activations"),
    ("a100", "e4m3", "e4m3", "layers.0.self_attn.q_proj: a100: no kernel"),
    ("epyc_9654", "int8", "e4m3", "layers.0.self_attn.q_proj: epyc_9654: absent"),
    ("host", "e4m3", "int8", "e4m3 values need more than 8 bits"),
])  # fmt: skip
def test_absent_formats_are_not_priced(target: str, fmt: str, activation: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        cost(target, fmt, activation)


def test_float_layers_are_absent_on_the_chain() -> None:
    workload = load_workload("smollm2-135m")
    with pytest.raises(TargetError, match=r"float weights are absent on u280"):
        estimate(workload, {}, load_device("u280"), DECODE)
    assert estimate(workload, {}, load_device("h200"), DECODE).latency_s.value > 0


def test_plans_must_fit_the_workload() -> None:
    workload = load_workload("smollm2-135m")
    with pytest.raises(ValueError, match=r"'layers\.99' is none"):
        estimate(workload, {"layers.99": LayerPlan()}, load_device("h200"), DECODE)
    wrong = {"lm_head": LayerPlan(spec=TensorSpec.of(4, 4, get_format("int8")), activation="int8")}
    with pytest.raises(ValueError, match="lm_head"):
        estimate(workload, wrong, load_device("h200"), DECODE)


def test_architectures_that_do_not_fit_are_refused() -> None:
    chain = ChainArch(dsps=64)
    arch = AcceleratorArch(cores=3, chains_per_core=20, chain=chain, clock_hz=225e6, hbm_channels=24)
    assert cost("u280", options=Options(arch=arch)).resources["dsp"].value < 6369
    for bad, words in (
        (replace(arch, chains_per_core=40), "does not fit one region"),
        (replace(arch, cores=4, hbm_channels=24), "the board has 3"),
        (replace(arch, hbm_channels=48), "the board has 32"),
        (replace(arch, clock_hz=800e6), "above the data sheet's ceiling"),
    ):
        with pytest.raises(TargetError, match=words):
            cost("u280", options=Options(arch=bad))


def test_flightllm_configuration_is_fitted_and_extrapolates() -> None:
    (item,) = assumptions().configuration
    assert item.efficiency.value == pytest.approx(fit_memory_efficiency(item), abs=1e-3)
    workload, own, board = load_workload("llama2-7b"), flightllm_plans(), load_device("u280")
    at = {
        context: estimate(workload, own, board, Phase(kind="decode", context=context), Options(calibration="flightllm"))
        for context in (128, 640, 1152)
    }
    seconds = {context: cost.latency_s.value for context, cost in at.items()}
    assert seconds[128] == pytest.approx(17.50e-3, rel=0.005)  # the U280 bitstream at KV length 128
    assert at[128].traffic_bytes == pytest.approx(3.43e9, rel=0.05)  # its parameters in HBM
    # each cached token: 256 KiB of int8 keys and values, QK and PV, two softmax passes; linear in the context
    assert seconds[1152] - seconds[640] == pytest.approx(seconds[640] - seconds[128], rel=0.01)
    bandwidth = 24 * 14.375e9 * item.efficiency.value
    softmax = 2 * 32 * 32 / (16 * 3) / 225e6
    assert (seconds[1152] - seconds[640]) / 512 == pytest.approx(2 * 4096 * 32 / bandwidth + softmax, rel=0.03)


def test_configurations_belong_to_a_board() -> None:
    assert cost("u50", options=Options(calibration="flightllm")).latency_s == cost("u50").latency_s
    with pytest.raises(TargetError, match="unknown calibrated configuration 'flytllm'; known: flightllm"):
        cost("u280", options=Options(calibration="flytllm"))


def test_the_built_in_recipe_is_the_fitted_case() -> None:
    from sparsefab.models.compress.builtin import find_recipe
    from sparsefab.reports.plans import shape_plans

    assert shape_plans(load_workload("llama2-7b"), find_recipe("flightllm")) == flightllm_plans()


def test_a_cache_format_changes_its_bytes() -> None:
    long = Phase(kind="decode", context=16384)
    for target in ("h200", "u280"):
        wide = cost(target, phase=long, options=Options(kv=KvCache(format="int8")))
        narrow = cost(target, phase=long, options=Options(kv=KvCache(format="int4")))
        difference = wide.memory_bytes.value - narrow.memory_bytes.value
        assert difference == 2 * 16384 * 4096 * 32 / 2
        assert narrow.latency_s.value < wide.latency_s.value
    # fp8 against bf16 caches on H200, 1-5 GB: measured 1.27x on attention, not 2x (aiconfigurator attention tables)
    phase = Phase(kind="decode", batch=16, context=16384)
    times = []
    for kv in (None, "e4m3"):
        layers = cost("h200", phase=phase, options=Options(kv=KvCache(format=kv))).layers
        times.append(sum(layer.latency_s.value for layer in layers if layer.kind == "attention"))
    assert 1.0 < times[0] / times[1] < 1.9


def test_provenance_follows_the_bulk() -> None:
    assert cost("h200", "e4m3", "e4m3").provenance is Provenance.CALIBRATED
    assert cost("b200").provenance is Provenance.MODELLED
    assert cost("u280").provenance is Provenance.MODELLED
    assert cost("host").provenance is Provenance.MODELLED  # measured peaks, but no timed kernel
    tier, words = Provenance.of_sum([(Provenance.CALIBRATED, 3.0), (Provenance.ASSUMED, 1.0)])
    assert (tier, words) == (Provenance.CALIBRATED, "75% calibrated, 25% assumed")
    assert any("calibrated" in note for note in cost("h200", "e4m3", "e4m3").notes)


def test_report_json_has_decode_on_top_and_prefill_inside() -> None:
    decode, prefill = cost("u280", phase=DECODE), cost("u280", phase=PREFILL)
    table = json.loads(json.dumps(report_json(decode, prefill, layers=True)))
    for name in ("latency_s", "throughput_tokens_per_s", "energy_per_token_j"):
        assert set(table[name]) == {"value", "low", "high"}
        assert table[name] == getattr(decode, name).to_json()
        assert table["prefill"][name] == getattr(prefill, name).to_json()
    assert table["energy"]["prefill_energy_joules"]["value"] == pytest.approx(
        prefill.power_w.value * prefill.latency_s.value)  # fmt: skip
    assert table["layers"][0]["support"] == "native"
    alone = report_json(None, prefill)
    assert alone["latency_s"] == prefill.latency_s.to_json()
    assert "generation_energy_joules" not in alone["energy"]  # type: ignore[operator]


def test_a_figure_checks_its_order() -> None:
    with pytest.raises(ValueError, match="low <= value <= high"):
        Figure(value=1.0, low=2.0, high=3.0)
    half = Figure(value=2.0, low=1.0, high=4.0).per(8.0)
    assert half == Figure(value=4.0, low=2.0, high=8.0)


def test_a_machines_own_kernels_replace_assumed_shares() -> None:
    def sample(tokens: int, share: float) -> KernelSample:
        seconds = 2 * 1024 * 1024 * 0.2 * tokens / (share * 1.46e12)
        return KernelSample(
            kernel="block_4x1", rows=1024, columns=1024, tokens=tokens, density=0.2, threads=2, seconds=seconds
        )

    timed = replace(HOST, kernels=(sample(64, 0.40), sample(128, 0.42), sample(256, 0.44)))
    model = load_workload("smollm2-135m")
    own = plans(model, "int8", "int8", pattern="4x1@0.2")
    terms = []
    for host in (HOST, timed):
        layers = estimate(model, own, measured_device(host), PREFILL, Options(measured=host)).layers
        terms.append(sum(layer.terms_s["compute"] for layer in layers if layer.kernel == "block_4x1"))
    assert terms[1] / terms[0] == pytest.approx(0.56 / 0.42)


def test_earlier_calls_leave_nothing_behind() -> None:
    first = cost("h200").to_json()
    cost("a10", "int4", "float", group=128)
    assert cost("h200").to_json() == first


def test_routed_experts_cost_their_share() -> None:
    model = load_workload("mixtral-8x7b")

    def run(tokens: int, target: str = "h200", resident: float = 1.0) -> Estimate:
        phase = Phase(kind="decode", batch=tokens, context=1)
        own = plans(model, "int8", "int8")
        return estimate(model, own, load_device(target), phase, Options(resident_experts=resident))

    one, many = run(1), run(64)
    expert = 3 * 4096 * 14336
    # a token reads two of eight experts; 64 tokens read all but 0.75^64 of them: bytes of a block's experts
    for cost, read in ((one, 2.0), (many, 8 * (1 - 0.75**64))):
        moved = sum(layer.memory_bytes for layer in cost.layers if ".experts." in layer.name and layer.macs)
        assert moved == pytest.approx(32 * read * expert, rel=0.001)  # int8 with a multiplier a row
        macs = sum(layer.macs for layer in cost.layers if ".experts." in layer.name)
        assert macs == pytest.approx(cost.phase.batch * 2 * 32 * expert)
    # all 46.7 G parameters stay in memory, whichever are read
    assert one.memory_bytes.value == pytest.approx(46.7e9, rel=0.01)
    assert run(1, resident=0.5).memory_bytes.value == pytest.approx(46.7e9 - 0.5 * 32 * 8 * expert, rel=0.01)
    for target in ("h200", "u280", "epyc_9654"):
        all_here, half = run(1, target), run(1, target, resident=0.5)
        link = 0.5 * 32 * 2 * expert / 25e9
        assert half.latency_s.value - all_here.latency_s.value == pytest.approx(link, rel=0.001)
        assert half.terms_s["link"] == pytest.approx(link, rel=0.001)
