"""A reward is the mean of what was answered, or nothing; never a zero for a failure."""

from dataclasses import replace

import numpy as np
import pytest

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion, Prompt, Sample, Verdict
from lens_rl.recipe import RewardChoice
from lens_rl.rewards import WeightedRewards

PROMPT = Prompt("p", "a red circle", criteria=tuple(Criterion(str(i), "x", "k") for i in range(5)))
SAMPLE = Sample("p", np.zeros((4, 4, 3), np.uint8), None, (4, 4), 0)


def verdicts(values):
    return [
        Verdict(str(i), "sha", "judge", value, status="ok" if value is not None else "timeout")
        for i, value in enumerate(values)
    ]


def rubric(values, coverage=0.8):
    return WeightedRewards([RewardChoice(min_coverage=coverage)])(PROMPT, SAMPLE, verdicts(values))


def test_mean_of_the_valid():
    assert rubric([1, 0, 1, 1, 0]) == pytest.approx(0.6)
    assert rubric([1, None, 1, 1, 0]) == pytest.approx(0.75)


def test_below_coverage_there_is_no_reward():
    assert rubric([1, None, None, 1, 0]) is None
    assert rubric([None] * 5, coverage=0.0) is None


def test_a_verdict_is_one_zero_or_an_error():
    for value, status in ((None, "ok"), (1, "timeout")):
        with pytest.raises(ValueError, match="status"):
            Verdict("c", "sha", "judge", value, status=status)


OWN = """
class Brightness:
    def __init__(self, choice):
        pass
    def __call__(self, prompt, sample, verdicts):
        return None if prompt.text == "dark" else sample.image.mean() / 255 + {shift}
"""


def test_own_reward_is_weighed_in(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("{shift}", "1"))
    both = WeightedRewards([RewardChoice(weight=3.0), RewardChoice(kind=f"python: {file}:Brightness")])
    assert both(PROMPT, SAMPLE, verdicts([1, 0, 1, 1, 0])) == pytest.approx((3 * 0.6 + 1) / 4)
    assert both(replace(PROMPT, text="dark"), SAMPLE, verdicts([1, 1, 1, 1, 1])) is None


def test_bad_rewards_are_named(tmp_path):
    with pytest.raises(RecipeProblem, match=r"unknown reward 'rubrik' .did you mean 'rubric'"):
        WeightedRewards([RewardChoice(kind="rubrik")])
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("{shift}", "2"))
    with pytest.raises(RecipeProblem, match=r"Brightness gave 2.0; a reward lies in \[0, 1\]"):
        WeightedRewards([RewardChoice(kind=f"python: {file}:Brightness")])(PROMPT, SAMPLE, [])
