"""The real loop on a tiny model: it learns, and it stops as it should."""

import inspect
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lens_core.recipes import RecipeProblem, find_recipe, load_recipe
from lens_core.records import Prompt
from lens_core.runs import RunFolder, RunProblem
from lens_rl import learning, nft, trainer
from lens_rl.job import check_run, run_job
from lens_rl.judges.backend import JudgeProblem
from lens_rl.policy import make_policy
from lens_rl.recipe import RECIPES, RlRecipe
from lens_rl.rollout import FeatureBank, plan, roll_out
from tests.e2e.runs import SMALL, command, finish, model
from tests.test_rollout import PROMPTS, SIZES
from tests.tiny import tiny_generator

BRIGHT = """
from lens_rl.judges.backend import Answer, Backend, Reply

class Bright(Backend):
    '''Says yes to pictures that are brighter than those the untrained model makes on average.'''
    identity = "bright"
    def __init__(self, judge): pass
    async def answer(self, image, questions):
        return Reply(tuple(Answer(int(image.mean() > {threshold})) for _ in questions))
"""

BROKEN = """
from lens_rl.judges.backend import Answer, Backend, Reply

class Broken(Backend):
    '''Fails on every third picture.'''
    identity = "broken"
    asked = 0
    def __init__(self, judge): pass
    async def answer(self, image, questions):
        Broken.asked += 1
        answer = Answer(None, "error") if Broken.asked % 3 == 0 else Answer(Broken.asked % 2)
        return Reply((answer,) * len(questions))
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return model(tmp_path_factory.mktemp("start") / "model")


def recipe(start, *overrides):
    return load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [*SMALL, f"model={start}", *overrides])


def usual_brightness():
    """The median over pictures of the untrained model."""
    generator = tiny_generator()
    orders = plan(
        [Prompt("p", "one red circle")], images_per_prompt=60, sizes=[(20, 20)], size_mode="per_group", seed=0
    )
    made = roll_out(generator, FeatureBank(generator), orders, num_steps=2, sampler="euler", batch_size=60)
    return float(np.median([one.image.mean() for _, one in made]))


def judge(tmp_path, source, name, **values):
    file = tmp_path / "own.py"
    text = source
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    file.write_text(text)
    return f"judge.backend='python: {file}:{name}'"


@pytest.mark.parametrize("size_mode", ["per_group", "within_group"])
def test_the_loop_learns_what_the_judge_likes(tmp_path, start, size_mode):
    config = recipe(
        start,
        judge(tmp_path, BRIGHT, "Bright", threshold=usual_brightness()),
        f"rollout.size_mode={size_mode}",
        "steps=30",
        "evaluation.every=30",
        "rollout.images_per_prompt=8",
        "nft.kl_weight=0.0",
        "optimizer.lr=5e-3",
    )
    outcome = run_job(config, tmp_path / "run")
    held_out = outcome.summary["held_out"]
    assert outcome.reason == "finished"
    assert 0.05 < held_out["base"] < 0.95
    assert held_out["gain_interval"][0] > 0.05
    assert (tmp_path / "run" / "samples" / "contact-sheet.png").is_file()
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))


def test_the_reference_timesteps_run_too(tmp_path, start):
    config = recipe(start, "nft.timesteps=reference", "nft.noise=per_image", "steps=1", "rollout.num_steps=3")
    assert run_job(config, tmp_path / "run").reason == "finished"


def test_a_loss_that_is_not_finite_spoils_no_checkpoint(tmp_path, start):
    with pytest.raises(RunProblem, match="stopped before it could touch the weights"):
        run_job(recipe(start, "nft.nft_beta=1e-310", "steps=9"), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    for name, tensor in load_file(folder.checkpoint(folder.checkpoints()[0]) / "training/roles.safetensors").items():
        assert tensor.isfinite().all(), name


def test_a_failing_judge_stops_the_run_and_is_no_zero(tmp_path, start):
    config = recipe(start, judge(tmp_path, BROKEN, "Broken"))
    with pytest.raises(JudgeProblem, match=r"validation pictures are errors so far \(\d+ error\), more than"):
        run_job(config, tmp_path / "run")
    tolerant = recipe(start, judge(tmp_path, BROKEN, "Broken"), "judge.max_error_share=0.9", "steps=2")
    summary = run_job(tolerant, tmp_path / "tolerant").summary
    assert summary["judge_errors"] > 0
    assert summary["cost_usd"] == 0.0
    rows = [json.loads(line) for line in (tmp_path / "tolerant" / "metrics.jsonl").read_text().splitlines()]
    assert all(abs(row["images/without_reward"] - row["images"] / 3) < 1 for row in rows[1:])
    # Two thirds answer, half of them yes: with failures as zeros the mean would be a third.
    assert 0.4 < sum(row["reward"] for row in rows[1:]) / len(rows[1:]) < 0.6


def test_a_guard_stops_the_run_and_hands_back_the_best(tmp_path, start):
    config = recipe(start, "guards.max_norm_ratio=1.0000001", "optimizer.lr=1e-2", "save_every=1")
    outcome = run_job(config, tmp_path / "run")
    assert outcome.reason.startswith("drift")
    assert outcome.summary["ended"] == outcome.reason
    assert outcome.summary["steps"] < 12
    rows = RunFolder(tmp_path / "run").metrics()
    best = max((row for row in rows if "validation/reward" in row), key=lambda row: row["validation/reward"])
    assert outcome.summary["best_step"] == best["step"]
    again = run_job(config, tmp_path / "run")
    assert again.reason == "finished before" and again.summary == outcome.summary


def test_a_stopped_run_that_was_killed_before_its_test_does_not_train_on(tmp_path, start):
    config = recipe(start, "guards.max_norm_ratio=1.0000001", "optimizer.lr=1e-2", "save_every=1")
    whole = run_job(config, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    again = run_job(config, tmp_path / "run")
    assert again.reason == whole.reason
    assert again.summary | {"wall_seconds": 0} == whole.summary | {"wall_seconds": 0}


def test_groups_that_teach_nothing_are_skipped_and_counted(tmp_path, start):
    config = recipe(start, judge(tmp_path, BRIGHT, "Bright", threshold=-1), "steps=2")
    outcome = run_job(config, tmp_path / "run")
    rows = RunFolder(tmp_path / "run").metrics()
    assert [row["groups/skipped"] for row in rows[1:]] == [4, 4]
    assert not any("gradient_norm" in row for row in rows)
    assert outcome.summary["held_out"]["gain"] == 0.0


def test_skipping_changes_the_time_and_not_the_gradient(tmp_path, start):
    """At current = old a group without differences pulls nowhere: leaving it out is exact."""
    generator = tiny_generator()
    policy = make_policy(generator.trainable, generator.lora_targets, kind="full", rank=4, alpha=8, seed=0)
    bank = FeatureBank(generator)
    orders = plan(PROMPTS, images_per_prompt=3, sizes=SIZES[:1], size_mode="per_group", seed=1)
    made = list(roll_out(generator, bank, orders, num_steps=2, sampler="euler", batch_size=8))
    reward_PG = torch.tensor([[0.1, 0.5, 0.9], [0.4, 0.4, 0.4]])
    optimality_PG = nft.optimality(nft.advantage(reward_PG, clip=5.0), clip=5.0)
    config = recipe(start).nft

    def gradient(samples):
        for parameter in policy.parameters():
            parameter.grad = None
        for lesson in learning.lessons(
            samples,
            optimality_PG,
            generator=generator,
            features=bank,
            recipe=config,
            num_sampler_steps=2,
            batch_size=8,
            seed=3,
        ):
            losses = learning.losses(policy, generator, lesson, config, measure_reference=False)
            losses.policy_B.sum().backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    everything, useful = gradient(made), gradient([pair for pair in made if pair[0].group == 0])
    assert useful.abs().max() > 1e-4
    torch.testing.assert_close(everything, useful, atol=1e-6, rtol=1e-4)


def test_sizes_that_do_not_fit_are_refused_before_any_work(tmp_path, start):
    config = recipe(start, "rollout.sizes=[[20, 18]]")
    with pytest.raises(RecipeProblem, match=r"rollout.sizes: 20x18 does not fit .* the nearest is 20x16"):
        run_job(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    planned, problems = check_run(config)
    assert planned.images == 12 * 4 * 4
    assert len(problems) == 1 and "20x18" in problems[0]


def test_the_plan_counts_what_the_run_does(tmp_path, start):
    config = recipe(start, "steps=3")
    planned, problems = check_run(config)
    summary = run_job(config, tmp_path / "run").summary
    assert problems == []
    assert summary["images"] == planned.images + planned.evaluation_images
    assert math.isclose(summary["verdicts"], planned.verdicts, rel_tol=0.1)


def test_the_step_is_a_page_that_names_the_stages_in_order():
    source = inspect.getsource(trainer.train)
    stages = ["draw", "roll_out", "collect", "reward", "advantage", "optimality", "losses", "optimizer_step",
              '"old"', '"ema"', "validate", "log", "save", "ended"]  # fmt: skip
    body = source[source.index("while not") :]
    assert len(source.splitlines()) <= 50
    places = [body.index(stage, body.index("groups")) for stage in stages]
    assert places == sorted(places)
    assert not any(word in source for word in ("dist.", "rank", "json", "open(", "**2", "torch."))


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_bf16_computes_in_bf16_and_trains_in_fp32(tmp_path, start, kind):
    few = ("steps=3", f"policy.kind={kind}", "prompts.test=4", "prompts.validation=4")
    for precision in ("bf16", "fp32"):  # in processes of their own: accelerate allows one precision a process
        finish(command(start, tmp_path, precision, *few, f"precision={precision}"))
    roles = "checkpoints/step-000003/training/roles.safetensors"
    low, high = load_file(tmp_path / "bf16" / roles), load_file(tmp_path / "fp32" / roles)
    assert low.keys() == high.keys() and {value.dtype for value in low.values()} == {torch.float32}
    assert any(not torch.equal(low[name], high[name]) for name in low)
    # Losses of the first step: the same prompts, noise and timesteps, pictures as unequal as bf16 and fp32 make them.
    one, other = (RunFolder(tmp_path / name).metrics()[1]["loss/policy"] for name in ("bf16", "fp32"))
    assert one != other and math.isclose(one, other, rel_tol=0.2)
