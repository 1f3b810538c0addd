"""Power, energy and price from the busy shares of a board.

    P = min(limit, static + memory * use of bandwidth + compute * use of peak)

with the uses measured against the data sheet over the whole pass.
"""

from sparsefab.cost_models.assumptions import assumptions
from sparsefab.cost_models.result import Figure
from sparsefab.targets import Device, Quantity

__all__ = ["power", "price_per_million_tokens"]

_HOURS_PER_YEAR, _SECONDS_PER_HOUR = 8766.0, 3600.0


def power(device: Device, memory_use: float, compute_use: float) -> tuple[Figure, float, str]:
    """Return board power in watts, its static part, and whether its terms are 'fitted' or 'modelled'.

    Parameters
    ----------
    memory_use, compute_use : float     Shares of data-sheet bandwidth and peak, clipped to 0..1.
    """
    constants, own = assumptions().power, device.power
    limit = own.limit_w.value
    uses = (1.0, min(max(memory_use, 0.0), 1.0), min(max(compute_use, 0.0), 1.0))
    terms = (own.static_w, own.memory_w, own.compute_w)
    fractions = (constants.static_fraction, constants.memory_fraction, constants.compute_fraction)
    fitted = all(term is not None for term in terms)
    watts = [
        term.value if term is not None else share.value * limit for term, share in zip(terms, fractions, strict=True)
    ]
    ranges = [_range(term, share, limit) for term, share in zip(terms, fractions, strict=True)]
    value = min(limit, sum(term * use for term, use in zip(watts, uses, strict=True)))
    low = sum(pair[0] * use for pair, use in zip(ranges, uses, strict=True))
    high = sum(pair[1] * use for pair, use in zip(ranges, uses, strict=True))
    spread = constants.spread.value
    figure = Figure.of(value, min(low, value * (1.0 - spread)), min(limit * 1.05, max(high, value * (1.0 + spread))))
    return figure, min(watts[0], value), "fitted" if fitted else "modelled"


def _range(term: Quantity | None, share: Quantity, limit: float) -> tuple[float, float]:
    if term is not None:
        return term.bounds
    return share.bounds[0] * limit, share.bounds[1] * limit


def price_per_million_tokens(device: Device, tokens_per_s: Figure, power_w: Figure) -> Figure | None:
    """Return USD per million tokens over every dated price of the device, as one interval; None without a price.

    Rent counts by the hour. A purchase is written off over its years at a utilisation, plus electricity.
    """
    rates = [hourly_usd(price.usd_per_hour, price.usd, power_w) for price in device.price]
    if not rates:
        return None
    rate = Figure.of(rates[0].value, min(item.low for item in rates), max(item.high for item in rates))
    return rate.times(tokens_per_s.per(1e6 / _SECONDS_PER_HOUR))


def hourly_usd(rent: Quantity | None, purchase: Quantity | None, power_w: Figure) -> Figure:
    """Return the cost of one busy hour in USD."""
    if rent is not None:
        return Figure.of(rent.value, *rent.bounds)
    if purchase is None:
        raise ValueError("one of rent and purchase must be given")
    money = assumptions().economics
    hours = [
        years * _HOURS_PER_YEAR * use
        for years, use in zip(
            (money.years.value, money.years.bounds[1], money.years.bounds[0]),
            (money.utilisation.value, money.utilisation.bounds[1], money.utilisation.bounds[0]),
            strict=True,
        )
    ]
    capital = Figure.of(purchase.value / hours[0], purchase.bounds[0] / hours[1], purchase.bounds[1] / hours[2])
    energy = (
        power_w.times(Figure.of(money.overhead_power.value, *money.overhead_power.bounds))
        .times(Figure.of(money.usd_per_kwh.value, *money.usd_per_kwh.bounds))
        .times(1e-3)
    )
    return capital.plus(energy)
