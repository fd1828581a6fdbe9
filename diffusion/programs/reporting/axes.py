"""Axes of plots: from numbers to places, and the ticks that are written along them."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Axis:
    """low, high: the numbers at `start` and `end`, places in user units of the SVG; log: whether the axis is."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a number lies; outside of [low, high] it is outside of the axis too."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers inside, about `count` of them."""
        if self.log and self.high / self.low > 10:
            return _decades(self.low, self.high, count)
        return _steps(self.low, self.high, count)


def span(values, start: float, end: float, log: bool = False, margin: float = 0.04) -> Axis:
    """An axis that holds all the finite values (some may be missing), with room of `margin` at both ends."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        room = (high / low) ** margin if high > 2 * low else 2.0
        return Axis(low / room, high * room, start, end, True)
    # Numbers nearer to each other than their labels can tell are one number.
    apart = high - low > 1e-4 * max(abs(low), abs(high))
    room = (high - low) * margin if apart else abs(high) * 0.1 or 0.5
    return Axis(low - room, high + room, start, end)


def logarithmic(values) -> bool:
    """Whether numbers want a log axis: all that are finite are above 0, and they span more than a factor of 20."""
    finite = [v for v in values if math.isfinite(v)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > 20


def label(value: float) -> str:
    """A number as it is written at a tick: 12,000 or 0.05 or 1e-6, to six digits."""
    if value == 0:
        return '0'
    size = abs(value)
    if 1e-3 <= size < 1e7:
        # Six digits, without the zeros at their end; thousands apart.
        said = f'{value:,.{max(5 - math.floor(math.log10(size)), 0)}f}'
        return said.rstrip('0').rstrip('.') if '.' in said else said
    mantissa, exponent = f'{value:.3e}'.split('e')
    return f'{mantissa.rstrip("0").rstrip(".")}e{int(exponent)}'


def number(value: float) -> str:
    """A measured number, to four digits."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return f'{int(value):,}'
    return f'{value:.4g}'


def _steps(low, high, count):
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    # Of a float's last digits: 3 * 0.1 is written as 0.3.
    return [float(f'{i * step:.12g}') for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low, high, count):
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first + 1) / (count + 2)))
    found = [10.0**power for power in range(first, last + 1, stride)]
    if len(found) < 3:
        finer = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
        found = [value for value in finer if low <= value <= high]
    return found
