"""Charts are geometry: inside the plot, in order, with round ticks, whatever the values."""

import math
import re

from hypothesis import assume, given
from hypothesis import strategies as st

from lens_rl.report.charts import Limit, Series, line_chart, ticks

VALUES = st.floats(-1e6, 1e6)
CURVES = st.lists(st.tuples(st.integers(0, 10_000), VALUES), min_size=1, max_size=120, unique_by=lambda point: point[0])


def draw(*series, **options):
    return line_chart(series, label="a chart", text="{:.3f}".format, **options)


def numbers(path):
    return [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", path.replace("h0", ""))]


@given(VALUES, st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_round_inside_and_about_as_many_as_asked(low, width, count):
    high = low + width
    assume(high - low > 1e-9 * max(abs(low), abs(high)))
    found = ticks(low, high, count)
    slack = 1e-6 * width + 1e-9 * abs(low)
    assert all(low - slack <= tick <= high + slack for tick in found)
    assert found == sorted(found) and len(found) <= count + 1
    if len(found) > 1:
        step = (found[-1] - found[0]) / (len(found) - 1)
        leading = step / 10 ** math.floor(math.log10(step * 1.0001))
        assert min(abs(leading - factor) for factor in (1, 2, 5, 10)) < 1e-2


@given(CURVES)
def test_every_curve_stays_in_the_plot_and_rises_where_its_values_rise(points):
    points = sorted(points)
    chart = draw(Series("a", points, [(x, y - 1, y + 1) for x, y in points], dots=True))
    curve = chart.curves[0]
    for path in (curve.line, curve.dots, curve.band):
        assert all(-0.01 <= number <= 100.01 for number in numbers(path))
    tops = numbers(curve.line)[1::2]
    for (_, before), (_, after), high, low in zip(points, points[1:], tops, tops[1:], strict=False):
        assert (after >= before) == (low <= high) or abs(low - high) < 0.02


@given(CURVES)
def test_readings_share_out_the_plot_and_give_every_value(points):
    points = sorted(points)
    chart = draw(Series("a", points, dots=True))
    edge = 0.0
    for reading in chart.readings:
        assert abs(reading.left - edge) < 0.02
        assert reading.left - 0.02 <= reading.at <= reading.left + reading.width + 0.02
        edge = reading.left + reading.width
    assert abs(edge - 100) < 0.02
    if len(points) <= 80:
        assert [value for reading in chart.readings for _, _, value in reading.values] == [
            f"{y:.3f}" for _, y in points
        ]


def test_values_that_are_no_numbers_are_left_out():
    chart = draw(Series("a", [(0, 0.1), (1, math.nan), (2, math.inf), (3, 0.2)], [(0, math.nan, 1.0), (3, 0.1, 0.3)]))
    assert len(numbers(chart.curves[0].line)) == 4 and "nan" not in str(chart) and "inf" not in str(chart)


def test_one_value_and_equal_values_can_be_drawn():
    assert numbers(draw(Series("a", [(5, 0.0)], dots=True)).curves[0].line) == [0.0, 50.0]
    assert set(numbers(draw(Series("a", [(0, 0.7), (9, 0.7)])).curves[0].line)[1::2]) == {50.0}
    assert draw(Series("a", [])).curves[0].line == ""


def test_limits_widen_the_scale_and_spans_make_charts_comparable():
    chart = draw(Series("a", [(0, 1.0), (1, 1.1)]), limits=[Limit(1.3, "high"), Limit(0.7, "low")])
    assert 0 < chart.limits[0][0] < chart.limits[1][0] < 100
    steep, flat = draw(Series("a", [(0, 0.2), (1, 0.6)])), draw(Series("a", [(0, 0.8), (1, 0.9)]), span=0.4)
    rise = [numbers(chart.curves[0].line)[1] - numbers(chart.curves[0].line)[3] for chart in (steep, flat)]
    assert abs(rise[0] / rise[1] - 4) < 0.01
