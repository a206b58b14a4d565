"""Who watches the judge: the held-out judge sees its share, never rewards, and stops a fooled run; canaries name."""

import math
import shutil
import sqlite3

import numpy as np
import pytest

from lens_core.recipes import RecipeProblem, find_recipe, load_recipe
from lens_core.runs import RunFolder
from lens_rl.guards import GAP_WINDOW, best_step, gap_growth, reason_to_stop
from lens_rl.job import check_run, run_job
from lens_rl.judges.backend import JudgeProblem
from lens_rl.models import resolve
from lens_rl.recipe import RECIPES, Guards, RlRecipe
from lens_rl.stages import Watcher
from tests.e2e.runs import SMALL, model, state

JUDGES = """
from lens_rl.judges.backend import Answer, Backend, Reply

class Bright(Backend):
    '''Rewards bright pictures: what the policy will learn to make.'''
    identity = "bright"
    threshold = THRESHOLD
    def __init__(self, judge): pass
    async def answer(self, image, questions):
        return Reply(tuple(Answer(int(image.mean() > self.threshold)) for _ in questions))

class Unmoved(Backend):
    '''Its answers have nothing to do with brightness: the least bit of some pixel.'''
    identity = "unmoved"
    def __init__(self, judge): pass
    async def answer(self, image, questions):
        return Reply(tuple(Answer(int(image[3, n % 16, 0]) & 1) for n, _ in enumerate(questions)))

class Absent(Backend):
    identity = "absent"
    def __init__(self, judge): pass
    async def answer(self, image, questions):
        return Reply((Answer(None, "error"),) * len(questions))

class Gullible(Backend):
    '''Says yes to everything that has large areas of plain white in it.'''
    identity = "gullible"
    def __init__(self, judge): pass
    async def answer(self, image, questions):
        return Reply((Answer(int((image == 255).all(axis=2).mean() > 0.3)),) * len(questions))
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return model(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture
def judges(tmp_path):
    (tmp_path / "own.py").write_text(JUDGES.replace("THRESHOLD", "127"))
    return lambda name: f"'python: {tmp_path / 'own.py'}:{name}'"


def recipe(start, *overrides):
    return load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [*SMALL, f"model={start}", *overrides])


class Listener(Watcher):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def stored(run, judge):
    with sqlite3.connect(run / "verdicts-rank0.sqlite") as database:
        return database.execute(
            "SELECT count(DISTINCT image_sha) FROM verdicts WHERE judge_id LIKE ?", (f"{judge}%",)
        ).fetchone()[0]


def test_a_held_out_judge_sees_its_share_and_changes_nothing(tmp_path, start, judges):
    """With and without it: the same weights, the same rewards; its verdicts are in the store under its own name."""
    short = ("steps=2", "prompts.validation=4", "prompts.test=4", "evaluation.every=2")
    run_job(recipe(start, *short), tmp_path / "alone")
    watched = ("held_out_judge.backend=" + judges("Unmoved"), "held_out_judge.share=0.3")
    run_job(recipe(start, *short, *watched), tmp_path / "watched")
    alone, seen = state(tmp_path / "alone"), state(tmp_path / "watched")
    for name in alone:
        if name not in ("metrics", "verdicts", "summary"):
            assert alone[name] == seen[name], name
    assert set(alone["verdicts"]) < set(seen["verdicts"])
    rows = RunFolder(tmp_path / "watched").metrics()
    for one, other in zip(rows, RunFolder(tmp_path / "alone").metrics(), strict=True):
        assert one.get("reward") == other.get("reward")
    for row in rows[1:]:
        assert row["held_out_judge/images"] == math.ceil(0.3 * 16) and row["held_out_judge/errors"] == 0
        assert row["held_out_judge/gap_low"] <= row["held_out_judge/gap"] <= row["held_out_judge/gap_high"]
    canaries = 2 * 4 * 4
    assert stored(tmp_path / "watched", "unmoved") <= 2 * math.ceil(0.3 * 16) + canaries


def test_a_run_that_is_resumed_watches_the_same_pictures(tmp_path, start, judges):
    settings = ("steps=2", "save_every=1", "prompts.validation=4", "prompts.test=4",
                "held_out_judge.share=0.2", "held_out_judge.backend=" + judges("Unmoved"))  # fmt: skip
    config = recipe(start, *settings)
    run_job(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    (tmp_path / "broken" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "step-000002")
    run_job(config, tmp_path / "broken")
    assert state(tmp_path / "whole")["metrics"] == state(tmp_path / "broken")["metrics"]
    assert state(tmp_path / "whole")["verdicts"] == state(tmp_path / "broken")["verdicts"]


def test_a_policy_that_fools_its_judge_is_stopped_and_the_best_confirmed_is_handed_back(tmp_path, start, judges):
    """The judge rewards brightness alone, of which the held-out judge knows nothing: no gain is confirmed."""
    from tests.test_trainer import usual_brightness

    (tmp_path / "own.py").write_text(JUDGES.replace("THRESHOLD", str(usual_brightness())))
    config = recipe(
        start, "judge.backend=" + judges("Bright"), "held_out_judge.backend=" + judges("Unmoved"),
        "held_out_judge.share=1.0", "steps=60", "evaluation.every=5", "save_every=5", "prompts.validation=16",
        "prompts.test=4", "rollout.images_per_prompt=8", "nft.kl_weight=0.0", "optimizer.lr=5e-3",
        "guards.max_gap=0.15",
    )  # fmt: skip
    outcome = run_job(config, tmp_path / "run")
    assert outcome.reason.startswith("fooled judge"), outcome.reason
    rows = RunFolder(tmp_path / "run").metrics()
    assert outcome.summary["steps"] < 60 and rows[-1]["held_out_judge/gap_growth"] > 0.15
    last = max(row["validation/reward"] for row in rows if "validation/reward" in row)
    assert last > rows[0]["validation/reward"] + 0.15, "to the judge itself all went well"
    best = {row["step"]: row for row in rows}[outcome.summary["best_step"]]
    assert best.get("held_out_judge/gap_growth", 0.0) < 0.15
    assert f"step-{best['step']:06d}" in str(resolve(str(tmp_path / "run")).transformer)


def rows_with(gaps, rewards):
    rows, past = [], []
    for step, (gap, reward) in enumerate(zip(gaps, rewards, strict=True)):
        past.append(gap)
        row = {"step": step, "guard/norm_ratio": 1.0, "held_out_judge/gap": gap, "validation/reward": reward}
        growth = gap_growth(past)
        rows.append(row if growth is None else row | {"held_out_judge/gap_growth": growth})
    return rows


def test_the_rule_looks_at_growth_over_windows():
    n, guards = GAP_WINDOW, Guards(max_gap=0.1)
    severe = rows_with([0.3] * 4 * n, [0.5] * 4 * n)
    assert reason_to_stop(severe, guards) is None, "a judge that is milder from the start is not fooled"
    assert gap_growth([0.0] * (2 * n - 1)) is None
    outlier = rows_with([0.0] * 3 * n + [0.9], [0.5] * (3 * n + 1))
    assert reason_to_stop(outlier, guards) is None, "nor is one that errs in one step"
    growing = rows_with([0.01 * step for step in range(4 * n)], [0.5 + 0.01 * step for step in range(4 * n)])
    stops = [len(growing[: k + 1]) for k in range(4 * n) if reason_to_stop(growing[: k + 1], guards)]
    # The means of the first and the last ten lie (k - n) apart after k steps, a hundredth a step.
    assert stops[0] == 2 * n + 1
    assert "0.110 more than the held-out judge's" in reason_to_stop(growing[: stops[0]], guards)


def test_what_is_not_confirmed_does_not_make_a_step_the_best():
    n = GAP_WINDOW
    rises = [0.5 + 0.02 * step for step in range(3 * n)]
    assert best_step(rows_with([0.0] * 3 * n, rises)) == 3 * n - 1
    assert best_step(rows_with([0.0] * n + [0.03 * step for step in range(2 * n)], rises)) < 2 * n


def test_a_watch_that_cannot_see_is_refused_before_any_work(tmp_path, start, judges):
    itself = recipe(start, "held_out_judge.backend=shapes")
    assert any("a judge always agrees with itself" in problem for problem in check_run(itself)[1])
    with pytest.raises(RecipeProblem, match="held_out_judge: it is shapes-2, as the judge itself"):
        run_job(itself, tmp_path / "itself")
    unknown = recipe(start, "held_out_judge.backend=shape")
    with pytest.raises(RecipeProblem, match=r"held_out_judge.*unknown backend 'shape' \(did you mean 'shapes'"):
        run_job(unknown, tmp_path / "unknown")
    assert not (tmp_path / "unknown" / "metrics.jsonl").exists()
    with pytest.raises(RecipeProblem, match="share"):
        recipe(start, "held_out_judge.backend=shapes", "held_out_judge.share=0")


def test_a_held_out_judge_that_fails_pauses_the_run(tmp_path, start, judges):
    config = recipe(start, "held_out_judge.backend=" + judges("Absent"), "prompts.validation=4")
    with pytest.raises(JudgeProblem, match=r"held_out_judge, read for judge here: paused: \d+ of the \d+"):
        run_job(config, tmp_path / "run")


def test_a_judge_that_passes_a_canary_is_named(tmp_path, start, judges):
    few = ("steps=1", "prompts.validation=6", "prompts.test=4", "rollout.sizes=[[32, 32]]")
    listener = Listener()
    config = recipe(start, *few, "judge.backend=" + judges("Gullible"), "held_out_judge.backend=" + judges("Unmoved"))
    run_job(config, tmp_path / "run", listener)
    row = RunFolder(tmp_path / "run").metrics()[0]
    assert row["canary/judge/sign"] == 1.0 and row["canary/judge/blank"] == row["canary/judge/noise"] == 0.0
    assert {name.split("/")[1] for name in row if name.startswith("canary/")} == {"judge", "held_out_judge"}
    named = [line for line in listener.warnings if line.startswith("judge ")]
    assert named and all("judge gullible+" in line and "'sign'" in line and "100%" in line for line in named)


def test_the_embedded_judge_is_never_named(tmp_path, start):
    listener = Listener()
    run_job(recipe(start, "steps=1", "prompts.validation=6", "prompts.test=4"), tmp_path / "run", listener)
    row = RunFolder(tmp_path / "run").metrics()[0]
    assert listener.warnings == []
    shares = [row[f"canary/judge/{kind}"] for kind in ("blank", "noise", "sign", "swapped")]
    assert all(0 <= share <= 0.5 for share in shares) and np.isfinite(shares).all()
