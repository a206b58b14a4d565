"""Charts as plain geometry, for a page without scripts.

All positions are percent of the plot, from its left and its top. A template turns them into SVG paths stretched to
whatever width there is, with numbers as ordinary text beside them, so that text keeps its size on a phone.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]
Text = Callable[[float], str]
"""How a value is written."""

HEADROOM = 0.06
"""Share of the value range left free above and below."""
MAX_READINGS = 80
"""Places along the x axis at which values can be read off; of more, every n-th is kept."""


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: points from left to right, perhaps with a band (x, low, high) around it."""

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    look: str = "accent"
    """Name of a style in the page's style sheet."""
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """A horizontal line that a curve should not cross."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve as SVG path data in percent."""

    name: str
    look: str
    line: str
    dots: str
    band: str


@dataclass(frozen=True, slots=True)
class Reading:
    """The values at one x: a column of the plot, the exact place in it, and a line of text a curve."""

    left: float
    width: float
    at: float
    title: str
    values: list[tuple[str, str, str]]
    """(look, name, value)"""


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything that the template `chart` draws."""

    label: str
    curves: list[Drawn]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    limits: list[tuple[float, str]]
    readings: list[Reading]
    x_title: str = ""
    mark: tuple[float, str] | None = None
    small: bool = False
    names: list[tuple[str, str]] = field(default_factory=list)
    """(look, name) of the legend; empty where one curve needs none."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A value range, and where in percent a value lies in it."""

    low: float
    high: float
    flipped: bool = False

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(100 * (1 - share if self.flipped else share), 2)


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    text: Text,
    x_text: Text = "{:,.0f}".format,
    x_title: str = "",
    limits: Sequence[Limit] = (),
    mark: tuple[float, str] | None = None,
    zero: bool = False,
    span: float = 0.0,
    small: bool = False,
) -> Chart:
    """A chart of curves over a common x axis; values that are not finite are left out.

    `label` says in words what is to be seen, for those who do not see it. `mark` names one x. `zero` makes the value
    axis begin at 0; `span` is the least that it spans, so that charts beside each other can have one measure.
    """
    series = [_finite(one) for one in series]
    points = [point for one in series for point in one.points]
    xs = [x for x, _ in points]
    ys = [y for _, y in points]
    ys += [edge for one in series for _, low, high in one.band for edge in (low, high)]
    ys += [limit.value for limit in limits]
    x_scale, y_scale = _x_scale(xs), _y_scale(ys + [0.0] * zero, zero, span)
    return Chart(
        label=label,
        curves=[_drawn(one, x_scale, y_scale) for one in series],
        x_ticks=[(x_scale(tick), x_text(tick)) for tick in ticks(x_scale.low, x_scale.high, 3 if small else 6)],
        y_ticks=[(y_scale(tick), text(tick)) for tick in ticks(y_scale.low, y_scale.high, 2 if small else 5)],
        limits=[(y_scale(limit.value), limit.text) for limit in limits],
        readings=_readings(series, x_scale, text, x_text, x_title),
        x_title=x_title,
        mark=(x_scale(mark[0]), mark[1]) if mark else None,
        small=small,
        names=[(one.look, one.name) for one in series] if len(series) > 1 else [],
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values in [low, high]: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _finite(one: Series) -> Series:
    return Series(
        one.name,
        [point for point in one.points if all(map(math.isfinite, point))],
        [edge for edge in one.band if all(map(math.isfinite, edge))],
        one.look,
        one.dots,
    )


def _x_scale(xs: Sequence[float]) -> Scale:
    low, high = min(xs, default=0.0), max(xs, default=1.0)
    return Scale(low, high if high > low else low + 1)


def _y_scale(ys: Sequence[float], zero: bool, span: float) -> Scale:
    low, high = min(ys, default=0.0), max(ys, default=1.0)
    missing = max(0.0, span - (high - low))
    low, high = (low, high + missing) if zero else (low - missing / 2, high + missing / 2)
    room = HEADROOM * (high - low) or HEADROOM * abs(high) or 1.0
    return Scale(low if zero and low == 0 else low - room, high + room, flipped=True)


def _drawn(one: Series, x_scale: Scale, y_scale: Scale) -> Drawn:
    places = [(x_scale(x), y_scale(y)) for x, y in one.points]
    upper = [(x_scale(x), y_scale(high)) for x, _, high in one.band]
    lower = [(x_scale(x), y_scale(low)) for x, low, _ in one.band]
    return Drawn(
        name=one.name,
        look=one.look,
        line=_path(places),
        # A line of no length with round ends is a dot that stays round however the plot is stretched.
        dots="".join(f"M{x:g} {y:g}h0" for x, y in places) if one.dots else "",
        band=_path([*upper, *reversed(lower)]) + "Z" if len(upper) > 1 else "",
    )


def _path(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if places else ""


def _readings(series: Sequence[Series], x_scale: Scale, text: Text, x_text: Text, x_title: str) -> list[Reading]:
    """Columns that share the plot out among the x values of the curves with dots, or of all curves."""
    dotted = [one for one in series if one.dots] or list(series)
    xs = sorted({x for one in dotted for x, _ in one.points})
    xs = xs[:: -(-len(xs) // MAX_READINGS) or 1]
    edges = [0.0, *(x_scale((a + b) / 2) for a, b in itertools.pairwise(xs)), 100.0]
    bands = {one.name: {x: (low, high) for x, low, high in one.band} for one in series}
    found = []
    for x, left, right in zip(xs, edges, edges[1:], strict=False):
        values = []
        for one in series:
            value = dict(one.points).get(x)
            if value is None:
                continue
            low_high = bands[one.name].get(x)
            between = f" [{text(low_high[0])}, {text(low_high[1])}]" if low_high else ""
            values.append((one.look, one.name, text(value) + between))
        found.append(Reading(left, round(right - left, 2), x_scale(x), f"{x_title} {x_text(x)}".strip(), values))
    return found
