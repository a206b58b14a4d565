"""A run that costs money: it stops inside its budget, in mid-step, and goes on to the bit with a larger one."""

import pytest

from lens_core.recipes import RecipeProblem, find_recipe, load_recipe
from lens_core.runs import RunFolder
from lens_rl.job import check_run, run_job
from lens_rl.judges.accounts import accounts, stores_of
from lens_rl.judges.backend import JudgeProblem
from lens_rl.recipe import RECIPES, RlRecipe
from tests.e2e.runs import SMALL, assert_equal, model, state
from tests.fault_server import COMPLETION_TOKENS, running

PROMPT_TOKENS = 5000
REQUEST_USD = (PROMPT_TOKENS * 10 + COMPLETION_TOKENS * 40) / 1e6
PRICE = "judge.price={input: 10.0, output: 40.0}"
FEW = ("steps=3", "save_every=100", "rollout.images_per_prompt=8")


@pytest.fixture(scope="module")
def server():
    with running(prompt_tokens=PROMPT_TOKENS) as served:
        yield served


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return model(tmp_path_factory.mktemp("start") / "model")


def recipe(start, url, *overrides):
    judge = ("judge.backend=openai_chat", "judge.model=m", "judge.profile=generic", f"judge.base_url={url}")
    shape = ("judge.request=per_image", "judge.concurrency=4")
    return load_recipe(
        RlRecipe, find_recipe("shapes", RECIPES), [*SMALL, *FEW, f"model={start}", *judge, *shape, *overrides]
    )


def requests_by_step(run):
    (account,) = accounts(stores_of(run))
    return {row["step"]: row["tries"] for row in account["steps"]}


def test_a_run_stops_inside_its_budget_and_goes_on_to_the_bit(tmp_path, start, server):
    """The budget is what the first step and a half cost: `Done when` of the ledger."""
    whole = run_job(recipe(start, server.url, PRICE), tmp_path / "whole")
    steps = requests_by_step(tmp_path / "whole")
    assert whole.reason == "finished" and steps[1] == steps[2] == 32
    assert whole.summary["cost_usd"] == pytest.approx(sum(steps.values()) * REQUEST_USD)

    budget = REQUEST_USD * (1 + steps[0] + steps[1] + steps[2] / 2)
    with pytest.raises(JudgeProblem, match=r"judge\.budget_usd: .* start the same command again with a larger"):
        run_job(recipe(start, server.url, PRICE, f"judge.budget_usd={budget}"), tmp_path / "short")
    folder, (account,) = RunFolder(tmp_path / "short"), accounts(stores_of(tmp_path / "short"))
    assert [row["step"] for row in folder.metrics()] == [0, 1] and folder.checkpoints() == [0, 1]
    assert account["in_all"]["cost_usd"] <= budget
    assert 0 < requests_by_step(tmp_path / "short")[2] <= steps[2] / 2

    outcome = run_job(recipe(start, server.url, PRICE, "judge.budget_usd=1e3"), tmp_path / "short")
    assert outcome.reason == "finished"
    again = requests_by_step(tmp_path / "short")
    assert {step: again[step] for step in range(4)} == {step: steps[step] for step in range(4)}
    one, other = state(tmp_path / "whole"), state(tmp_path / "short")
    for found in (one, other):  # each start asks one question of its own, so the costs of the two differ by one
        found["summary"] = [line for line in found["summary"].splitlines() if "cost_usd" not in line]
    assert_equal(one, other)


def test_a_budget_too_small_for_a_step_is_refused_before_the_first_picture(tmp_path, start, server):
    short = recipe(start, server.url, PRICE, f"judge.budget_usd={25 * REQUEST_USD}")
    with pytest.raises(JudgeProblem, match=r"judge\.budget_usd: .* not pay for one step of 32 images in 32 requests"):
        run_job(short, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(JudgeProblem, match=r"judge\.budget_usd: 0 of .* the next request may cost"):
        run_job(recipe(start, server.url, PRICE, f"judge.budget_usd={REQUEST_USD}"), tmp_path / "other")


def test_a_budget_without_a_price_is_refused_by_the_dry_run_too(tmp_path, start, server):
    unpriced = recipe(start, server.url, "judge.budget_usd=5.0")
    _, problems = check_run(unpriced)
    assert len(problems) == 1 and "the price of 'm' is unknown: give judge.price.input" in problems[0]
    with pytest.raises(RecipeProblem, match="the price of 'm' is unknown"):
        run_job(unpriced, tmp_path / "run")


def test_a_run_folder_that_belongs_to_another_judge_is_refused_still(tmp_path):
    folder = RunFolder(tmp_path)
    folder.keep_config("judge: {budget_usd: 1.0, model: a}\n", may_change=["judge.budget_usd"])
    folder.keep_config("judge: {budget_usd: 2.0, model: a}\n", may_change=["judge.budget_usd"])
    assert "2.0" in (tmp_path / "config.yaml").read_text()
    with pytest.raises(RuntimeError, match=r'judge\.model: "a" there, "b" here'):
        folder.keep_config("judge: {budget_usd: 3.0, model: b}\n", may_change=["judge.budget_usd"])
