"""Caches: bytes by hand, extra work by hand, schemes by name; and what they do to estimates of every kind of target."""

import json
from pathlib import Path

import pytest

from sparsefab.cli.main import main
from sparsefab.cost_models.estimate import Estimate, KvCache, LayerPlan, Options, estimate
from sparsefab.cost_models.kv import SCHEMES, cache_bytes
from sparsefab.errors import TargetError
from sparsefab.formats.catalog import get_format
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import load_device
from sparsefab.workload import Attention, Phase
from sparsefab.workloads import load_workload

LAYER = Attention(name="a", heads=32, kv_heads=8, head_dim=128, causal=True)
VALUES = 2 * 8 * 128  # a token and layer


@pytest.mark.parametrize(("text", "expected"), [
    ("fp16", VALUES * 1000 * 2),
    ("e4m3", VALUES * 1000),
    ("int4", VALUES * 1000 / 2),
    ("int4,group=64", VALUES * 1000 * (0.5 + 4 / 64)),  # 4.5 bits with fp16 scale and zero point
    ("int4,keep=0.25", VALUES * 250 / 2),
    ("fp16,budget=256", VALUES * 256 * 2),
    ("fp16,rank=0.2", VALUES * 1000 * 2 * 0.2),
    ("fp16,rank=0.2,window=32", VALUES * (32 * 2 + 968 * 2 * 0.2)),
    ("fp16,window=5000,rank=0.5", VALUES * 1000 * 2),  # all of it stays whole
    ("fp16,outliers=0.02", VALUES * 1000 * (2 + 0.02 * 4)),
    ("int4,residual_rank=4", VALUES * 1000 / 2 + 2 * 8 * 4 * 2 * (1000 + 128)),
])  # fmt: skip
def test_bytes_by_hand(text: str, expected: float) -> None:
    assert KvCache.from_text(text).bytes_of(LAYER, 1000, 2.0) == pytest.approx(expected)


def test_the_device_s_own_format_is_the_default() -> None:
    for plain in (1.0, 2.0, 4.0):
        assert KvCache().bytes_of(LAYER, 77, plain) == VALUES * 77 * plain


def test_extra_work_by_hand() -> None:
    step = Phase(kind="decode", batch=3, context=1000)
    assert KvCache(format="int4").extra_macs(LAYER, step) == 0.0
    # queries times a correction of rank 4 instead of whole keys, and the same for values
    assert KvCache(residual_rank=4).extra_macs(LAYER, step) == 3 * 2 * 32 * 4 * (1000 + 128)
    assert KvCache(outliers=0.02).extra_macs(LAYER, step) == pytest.approx(3 * 2 * 32 * 0.02 * 1000 * 128)
    # half of 1024 channels shared by all heads: 512 a key and query in place of 128, and the query's own projection
    assert KvCache(rank=0.5).extra_macs(LAYER, step) == 3 * 2 * 32 * (1000 * (512 - 128) + 512 * 128)
    whole = Phase(kind="prefill", batch=1, context=1000)
    assert KvCache(keep=0.5, merge=True).extra_macs(LAYER, whole) == 1000 * 1024
    assert KvCache(keep=0.5).extra_macs(LAYER, whole) == 0.0
    encoder = Attention(name="a", heads=12, kv_heads=12, head_dim=64, causal=False)
    assert KvCache.from_text("gear").extra_macs(encoder, whole) == 0.0


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_shrink_the_cache(name: str) -> None:
    model, phase = load_workload("mistral-7b"), Phase(kind="decode", context=8192)
    plain = cache_bytes(model, phase, KvCache(), 2.0)
    assert plain == 32 * 8192 * VALUES * 2
    ratio = cache_bytes(model, phase, KvCache.from_text(name), 2.0) / plain
    # GEAR states 2.3 to 3.8 times less at 4 bits; CSKV 80 % less; KVMerger half; EMS 256 tokens of 8192
    low, high = {"gear": (0.28, 0.40), "cskv": (0.2, 0.21), "kvmerger": (0.5, 0.5), "ems": (1 / 32, 1 / 32)}[name]
    assert low - 1e-9 <= ratio <= high + 1e-9


_MERGE = 1000 * 1024  # a prefill compares each key of 8 heads of 128 with its neighbour's


@pytest.mark.parametrize(("name", "stored", "step", "prefill"), [
    # 4 bits, fp16 scale and zero point a group of 64, 2 % outliers of 4 bytes; rank 4 a head for keys and for values
    ("gear", 1000 * VALUES * (0.5 + 4 / 64 + 0.02 * 4) + 2 * 8 * 4 * (1000 + 128) * 2,
     2 * 32 * (4 * (1000 + 128) + 0.02 * 1000 * 128), 2 * 4 * 1000 * 1024 * 4),
    # a fifth of the 1,024 channels, 32 newest tokens whole; queries of 128 against 204.8 channels, and their projection
    ("cskv", VALUES * 2 * (32 + 0.2 * 968), 2 * 32 * (968 * (204.8 - 128) + 204.8 * 128), 2 * 1000 * 1024 * 204.8),
    ("kvmerger", 500 * VALUES * 2, 0.0, _MERGE),  # half of the tokens
    ("ems", 256 * VALUES * 2, 0.0, _MERGE),  # 256 tokens
])  # fmt: skip
def test_schemes_by_hand(name: str, stored: float, step: float, prefill: float) -> None:
    cache = KvCache.from_text(name)
    assert cache.bytes_of(LAYER, 1000, 2.0) == pytest.approx(stored)
    assert cache.extra_macs(LAYER, Phase(kind="decode", batch=3, context=1000)) == pytest.approx(3 * step)
    assert cache.extra_macs(LAYER, Phase(kind="prefill", context=1000)) == pytest.approx(prefill)


def cost(target: str, kv: str, kind: str = "decode") -> Estimate:
    model = load_workload("llama2-7b")
    plans = {
        layer.name: LayerPlan(spec=TensorSpec.of(*layer.weight_shape, get_format("int8")), activation="int8")
        for layer in model.weight_layers()
    }
    phase = Phase(kind=kind, batch=4, context=8192)  # type: ignore[arg-type]
    return estimate(model, plans, load_device(target), phase, Options(kv=KvCache.from_text(kv)))


@pytest.mark.parametrize("target", ["h200", "u280", "epyc_9654"])
def test_estimates_follow_the_cache(target: str) -> None:
    plain = cost(target, "int8")
    for kv in ("int8,keep=0.5", "int8,budget=256", "int4"):
        smaller = cost(target, kv)
        assert smaller.latency_s.value < plain.latency_s.value
        assert smaller.memory_bytes.value < plain.memory_bytes.value
        assert smaller.traffic_bytes < plain.traffic_bytes
    # corrections and outliers cost bytes and work
    corrected = cost(target, "int8,residual_rank=4,outliers=0.02")
    assert corrected.memory_bytes.value > plain.memory_bytes.value
    assert corrected.latency_s.value > plain.latency_s.value
    attention = [layer for layer in corrected.layers if layer.kind == "attention"]
    assert sum(layer.macs for layer in attention) > sum(
        layer.macs for layer in plain.layers if layer.kind == "attention"
    )
    merged = cost(target, "int8,keep=0.5,merge=true", "prefill")
    assert merged.latency_s.value >= cost(target, "int8,keep=0.5", "prefill").latency_s.value


@pytest.mark.parametrize(("text", "words"), [
    ("fp5", "unknown number format 'fp5'"),
    ("gear,rank", "'rank' is not key=value"),
    ("gear,ranks=2", "'ranks=2' is not key=value"),
    ("int4,keep=2", "keep must lie in"),
    ("int4,keep=most", "keep"),
    ("int4,group=0", "group must be positive"),
    ("int4,merge=maybe", "true or false"),
    ("int4,outliers=1", "outliers must lie in"),
    ("int4,window=-1", "must not be negative"),
])  # fmt: skip
def test_bad_caches(text: str, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        KvCache.from_text(text)
    assert type(caught.value).__module__ == "sparsefab.errors"


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [
        "estimate",
        "mixtral-8x7b",
        "--target",
        "h200",
        "--context",
        "4096",
        "--json",
        "--cache-dir",
        str(tmp_path),
    ]
    found = {}
    for label, extra in (("plain", []), ("ems", ["--kv", "ems"]), ("half", ["--resident-experts", "0.5"])):
        assert main([*common, *extra]) == 0
        found[label] = json.loads(capsys.readouterr().out)
    saved = found["plain"]["memory_bytes"]["value"] - found["ems"]["memory_bytes"]["value"]
    assert saved == pytest.approx(32 * (4096 - 256) * VALUES * 2)
    assert found["half"]["latency_s"]["value"] > 3 * found["plain"]["latency_s"]["value"]
    assert main([*common, "--kv", "gear,gruop=3"]) == 2
    assert "gruop" in capsys.readouterr().err


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="resident_experts"):
        Options(resident_experts=1.5)
    with pytest.raises(TargetError, match=r"unknown number format .* a scheme"):
        KvCache.from_text("")
