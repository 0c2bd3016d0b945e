"""Numbers and names in the form that people read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNITS = ("", " k", " M", " G", " T")


def printable(text: str) -> str:
    """Names come from files: nothing in them may reach the terminal as a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quantity(number: float, unit: str = "") -> str:
    """A number with three or four digits: 1.82 G, 11.7 M, 980."""
    power = 0
    while abs(number) >= 1000 and power < len(_UNITS) - 1:
        number, power = number / 1000, power + 1
    digits = 0 if not power or abs(number) >= 100 else 1 if abs(number) >= 10 else 2
    text = f"{number:.{digits}f}{_UNITS[power]}"
    return f"{text}{unit}" if power and unit else f"{text} {unit}".rstrip()


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number of things: 1 round, 1,062 samples; other plurals than those in -s are given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{share:.1%}".replace("%", " %")


def points(difference: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{round(difference * 100, 1) + 0.0:+.1f}"  # + 0.0: no minus before a zero


def interval(low: float, high: float, write: Callable[[float], str]) -> str:
    """Where a figure would lie on other samples of the same kind."""
    return f"{write(low)} to {write(high)}"


def removed(before: float, after: float) -> str:
    """How much more or less there is, as a signed percentage."""
    change = round(after / before - 1, 3) if before else 0.0
    return ("+" if change > 0 else "") + percent(change) if before else "-"


def shape(sizes: Sequence[int]) -> str:
    """A shape: 1x3x224x224."""
    return "x".join(str(size) for size in sizes) or "scalar"


def milliseconds(seconds: float) -> str:
    """A duration."""
    return f"{seconds * 1e3:.2f} ms"


def duration(seconds: float) -> str:
    """A duration with three digits in the unit that fits: 1.27 ms, 84.2 us, 2.10 s."""
    unit, size = ("s", 1.0) if seconds >= 1 else ("ms", 1e-3) if seconds >= 1e-3 else ("us", 1e-6)
    number = seconds / size
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f} {unit}"
