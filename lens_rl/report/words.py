"""How numbers are written on the page: the same everywhere, with a true minus sign."""

import math
from typing import Any

NOTHING = "\N{EN DASH}"
"""What stands where there is no number."""


def share(value: float | None) -> str:
    """A reward or a share of criteria: three digits, or a dash where there is none."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference of shares: +0.087; what rounds to nothing has no sign."""
    if value is None or math.isnan(value):
        return NOTHING
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def count(value: float) -> str:
    return f"{value:,.0f}"


def percent(value: float) -> str:
    """A share as whole percent; what is there is never called 0 %."""
    return "< 1 %" if 0 < value < 0.005 else f"{value:.0%}".replace("%", " %")


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 7 min 3 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def dollars(value: float | None) -> str:
    """US dollars; small sums are not rounded away, and an unknown price is said to be one."""
    if value is None:
        return "unknown"
    return "$0" if value == 0 else f"${value:,.2f}" if value >= 0.01 else "under $0.01"


def plain(value: Any) -> str:
    """A field of a recipe as it would be written in one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
