"""Power against the boards it was fitted to; prices by hand."""

import pytest

from sparsefab.cost_models.energy import hourly_usd, power, price_per_million_tokens
from sparsefab.cost_models.result import Figure
from sparsefab.targets import Quantity, load_device


@pytest.mark.parametrize(("device", "memory", "compute", "watts"), [
    # board power of the measured columns (ai-dynamo/aiconfigurator, vllm 0.22.0 gemm_perf): memory-bound bf16
    # products at 0.82 (H200) and 0.80 (B200) of the bandwidth; compute-bound ones sit at the H200's cap
    ("h200", 0.82, 0.01, 538.0),
    ("b200", 0.80, 0.01, 697.0),
    ("h200", 0.30, 0.68, 690.0),
])  # fmt: skip
def test_fitted_boards(device: str, memory: float, compute: float, watts: float) -> None:
    figure, static, how = power(load_device(device), memory, compute)
    assert figure.value == pytest.approx(watts, rel=0.05)
    assert figure.low <= 0.75 * figure.value
    assert how == "fitted"
    assert 0 < static < figure.value


def test_power_is_capped_and_monotonic() -> None:
    for name in ("a10", "a100", "h200", "u280", "epyc_9654"):
        device = load_device(name)
        watts = [power(device, use, use)[0].value for use in (0.0, 0.2, 0.5, 1.0, 3.0)]
        assert watts == sorted(watts)
        assert watts[-1] <= device.power.limit_w.value
        assert watts[0] < 0.35 * watts[-1]


def test_rent_price_by_hand() -> None:
    # RunPod, March 2026: H200 6.35 USD/h; 1,000 tokens/s are 3.6 M tokens an hour
    price = price_per_million_tokens(load_device("h200"), Figure.exact(1000.0), Figure.exact(500.0))
    assert price is not None
    assert price.value == pytest.approx(6.35 / 3.6)
    assert (price.low, price.high) == (pytest.approx(2.50 / 3.6), pytest.approx(7.00 / 3.6))


def test_purchase_price_by_hand() -> None:
    # 8,000 USD over 3 years at 60 %, 100 W at 1.4 x 0.12 USD/kWh
    rate = hourly_usd(None, Quantity(value=8000.0, source="x"), Figure.exact(100.0))
    assert rate.value == pytest.approx(8000 / (3 * 8766 * 0.6) + 0.1 * 1.4 * 0.12)
    assert rate.low < rate.value < rate.high
    with pytest.raises(ValueError, match="rent and purchase"):
        hourly_usd(None, None, Figure.exact(1.0))


def test_no_price_is_none() -> None:
    assert price_per_million_tokens(load_device("u50"), Figure.exact(10.0), Figure.exact(40.0)) is None
