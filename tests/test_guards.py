"""The stop rules fire on collapse, drift and sameness, and on nothing else."""

import pytest

from lens_rl.guards import best_step, reason_to_stop
from lens_rl.recipe import Guards

GUARDS = Guards(max_drop=0.05, patience=2, max_norm_ratio=1.3, min_diversity=0.5)


def history(rewards, every=2, **columns):
    rows = []
    for step in range(every * len(rewards)):
        row = {"step": step, "guard/norm_ratio": 1.0, "guard/diversity": 0.2}
        if step % every == every - 1:
            row["validation/reward"] = rewards[step // every]
        rows.append(row | {name: values[step] for name, values in columns.items() if step < len(values)})
    return rows


def test_a_rising_run_goes_on():
    rows = history([0.5, 0.55, 0.54, 0.6, 0.58, 0.62])
    assert all(reason_to_stop(rows[: n + 1], GUARDS) is None for n in range(len(rows)))


def test_collapse_needs_patience_and_hands_back_the_best():
    rows = history([0.5, 0.7, 0.64, 0.69, 0.62, 0.6])
    assert reason_to_stop(rows[:10], GUARDS) is None
    assert "collapse" in (reason_to_stop(rows, GUARDS) or "")
    assert best_step(rows) == 3


def test_the_earliest_of_equals_is_best():
    assert best_step(history([0.5, 0.7, 0.7])) == 3


@pytest.mark.parametrize("ratio", [1.31, 0.7, float("inf")])
def test_drift(ratio):
    assert "drift" in (reason_to_stop(history([0.5], **{"guard/norm_ratio": [1.0, ratio]}), GUARDS) or "")


def test_sameness_looks_at_windows():
    falling = [0.2] * 5 + [0.02] + [0.2] * 4
    assert reason_to_stop(history([0.5] * 5, **{"guard/diversity": falling}), GUARDS) is None
    lost = [0.2] * 5 + [0.05] * 5
    assert "sameness" in (reason_to_stop(history([0.5] * 5, **{"guard/diversity": lost}), GUARDS) or "")


def test_missing_measurements_stop_nothing():
    assert reason_to_stop([{"step": 0, "validation/reward": 0.5}], GUARDS) is None
    assert reason_to_stop(history([0.5] * 6, **{"guard/diversity": [float("nan")] * 12}), GUARDS) is None
