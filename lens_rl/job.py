"""A whole RL job: check everything, train, test the best checkpoint once, write the summary."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator

from base_model.feature_cache import FeatureCache
from lens_core.recipes import RecipeProblem, dump_recipe
from lens_core.records import Prompt
from lens_core.runs import RunFolder, write_whole
from lens_rl import checkpoint, samples
from lens_rl.evaluation import Scores, compare
from lens_rl.guards import best_step
from lens_rl.judges import open_backend, open_judge
from lens_rl.judges.backend import Backend, JudgeProblem
from lens_rl.judges.judge import RubricJudge, refuse_unreadable
from lens_rl.judges.prices import refuse_unpriced
from lens_rl.models import open_generator
from lens_rl.plan import Plan, make_plan
from lens_rl.policy import make_policy
from lens_rl.prompts import PromptStream, load_splits
from lens_rl.recipe import Judge, RlRecipe
from lens_rl.report import REPORT, write_report
from lens_rl.rewards import WeightedRewards
from lens_rl.rollout import FeatureBank
from lens_rl.stages import Interrupts, Run, Watcher
from lens_rl.trainer import train
from lens_rl.watch import Watch
from rubrics.rubric import Rubric

MAY_CHANGE = tuple(
    f"{section}.{field}"
    for section in ("judge", "held_out_judge")
    for field in ("base_url", "api_key_env", "concurrency", "timeout_seconds", "max_error_share", "budget_usd", "price")
)
"""Fields that a stopped run may be started again with another value of: no stored verdict depends on them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended; `summary` is None where it was interrupted and can go on."""

    reason: str
    summary: dict[str, Any] | None


def run_job(recipe: RlRecipe, path: Path, watcher: Watcher | None = None) -> Outcome:
    """Run, or go on with, the job in the run folder `path`.

    Raises ValueErrors and RunProblem with the recipe field or file to change; nothing is lost then.
    """
    finished = path / "summary.json"
    with RunFolder(path) as folder, Interrupts() as interrupts:
        folder.keep_config(dump_recipe(recipe), may_change=MAY_CHANGE)
        if finished.exists():
            if not (path / REPORT).exists():
                write_report(path)
            return Outcome("finished before", json.loads(finished.read_text()))
        with open_run(recipe, folder, interrupts, watcher or Watcher()) as run:
            reason = train(run)
            if run.interrupted():
                return Outcome(reason, None)
            return Outcome(reason, _close(run, reason))


def check_run(recipe: RlRecipe) -> tuple[Plan, list[str]]:
    """What the run would do, and everything that would keep it from starting here and now.

    Raises RecipeProblem only where there is too little to make a plan of.
    """
    problems: list[str] = []
    rubric = Rubric.load(recipe.rubric.path)
    prompts: list[Prompt] = []

    def read_prompts() -> None:
        splits = load_splits(recipe.prompts, rubric)
        prompts.extend([*splits.train, *splits.validation, *splits.test])

    for check in (
        read_prompts,
        lambda: WeightedRewards(recipe.rewards),
        lambda: check_judge(recipe.judge, open_backend(recipe.judge), prompts),
        lambda: recipe.held_out_judge and open_second(recipe, open_backend(recipe.judge), prompts),
        lambda: refuse_uncached(recipe, prompts),
        lambda: check_sizes(recipe, open_generator(recipe.model, features=recipe.features).size_multiple),
    ):
        try:
            check()
        except (ValueError, JudgeProblem) as problem:
            problems.append(str(problem))
    # Without prompts to look at, what the rubric asks of a prompt without facts is the best guess.
    criteria = [len(prompt.criteria) for prompt in prompts] or [rubric.size]
    return make_plan(recipe, sum(criteria) / len(criteria)), problems


@contextlib.contextmanager
def open_run(recipe: RlRecipe, folder: RunFolder, interrupts: Interrupts, watcher: Watcher) -> Iterator[Run]:
    """Build every part of a run, cheapest checks first; closes the judge at the end."""
    rubric = Rubric.load(recipe.rubric.path)
    splits = load_splits(recipe.prompts, rubric)
    rewards = WeightedRewards(recipe.rewards)
    backend = open_backend(recipe.judge)
    prompts = [*splits.train, *splits.validation, *splits.test]
    check_judge(recipe.judge, backend, prompts)
    second = open_second(recipe, backend, prompts)
    refuse_uncached(recipe, prompts)
    store = folder.path / "verdicts-rank0.sqlite"
    with contextlib.ExitStack() as closing:
        judge = closing.enter_context(contextlib.closing(open_judge(recipe.judge, backend, rubric, store)))
        held_out = None
        if second and recipe.held_out_judge:
            held_out = open_judge(recipe.held_out_judge, second, rubric, store)
            closing.enter_context(contextlib.closing(held_out))
            rehearse(recipe, held_out, splits.train, share=recipe.held_out_judge.share)
        rehearse(recipe, judge, splits.train)
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        accelerator = Accelerator(
            mixed_precision="no" if recipe.precision == "fp32" else recipe.precision,
            log_with="tensorboard",
            project_dir=folder.path,
        )
        generator = open_generator(recipe.model, accelerator.device, _stored_dtype(recipe), features=recipe.features)
        check_sizes(recipe, generator.size_multiple)
        if recipe.gradient_checkpointing:
            cast(Any, generator.trainable).enable_gradient_checkpointing()
        policy = make_policy(
            generator.trainable,
            generator.lora_targets,
            kind=recipe.policy.kind,
            rank=recipe.policy.rank,
            alpha=recipe.policy.alpha,
            seed=recipe.seed,
        )
        generator.trainable = accelerator.prepare_model(generator.trainable)
        optimizer = torch.optim.AdamW(
            policy.parameters(),
            lr=recipe.optimizer.lr,
            betas=recipe.optimizer.betas,
            eps=recipe.optimizer.eps,
            weight_decay=recipe.optimizer.weight_decay,
        )
        accelerator.init_trackers("tensorboard")
        yield Run(
            recipe=recipe,
            folder=folder,
            generator=generator,
            policy=policy,
            optimizer=optimizer,
            accelerator=accelerator,
            splits=splits,
            prompts=PromptStream(splits.train, per_step=recipe.prompts.per_step, seed=recipe.seed),
            judge=judge,
            watch=Watch(judge, held_out, recipe.held_out_judge, seed=recipe.seed),
            rewards=rewards,
            features=FeatureBank(generator),
            interrupts=interrupts,
            watcher=watcher,
        )
        accelerator.end_training()


def open_second(recipe: RlRecipe, first: Backend, prompts: Sequence[Prompt]) -> Backend | None:
    """The backend of the held-out judge, if there is one. Raises for one that cannot watch this judge."""
    if recipe.held_out_judge is None:
        return None
    try:
        second = open_backend(recipe.held_out_judge)
        check_judge(recipe.held_out_judge, second, prompts)
    except (RecipeProblem, JudgeProblem) as problem:
        raise type(problem)(f"held_out_judge, read for judge here: {problem}") from problem
    if second.identity == first.identity:
        raise RecipeProblem(
            f"held_out_judge: it is {second.identity}, as the judge itself: a judge always agrees with itself, so name "
            "another model"
        )
    return second


def _stored_dtype(recipe: RlRecipe) -> torch.dtype:
    """Weights that train are kept in fp32; in bf16 their forward is autocast. Under LoRA most do not train."""
    return torch.bfloat16 if recipe.precision == "bf16" and recipe.policy.kind == "lora" else torch.float32


def refuse_uncached(recipe: RlRecipe, prompts: Sequence[Prompt]) -> None:
    """Refuse a feature cache that lacks a prompt of the run, before anything is loaded."""
    if recipe.features is None:
        return
    if missing := FeatureCache(recipe.features).missing(prompt.text for prompt in prompts):
        raise RecipeProblem(
            f"features: {recipe.features} lacks {len(missing)} of the run's prompts, for example {missing[0]!r}; "
            f"`lens-rl features cache --recipe RECIPE --out {recipe.features}`, with the same --set, adds them"
        )


def check_judge(judge: Judge, backend: Backend, prompts: Sequence[Prompt]) -> None:
    """Refuse criteria that the judge cannot read, and a budget that nobody could keep."""
    refuse_unreadable(backend, prompts)
    refuse_unpriced(backend.model, judge.price, judge.budget_usd)


def rehearse(recipe: RlRecipe, judge: RubricJudge, prompts: Sequence[Prompt], *, share: float = 1.0) -> None:
    """Show the judge a grey picture of the largest size, before there are pictures to judge.

    `share` is that of a step's pictures that it will see.
    """
    height, width = max(recipe.rollout.sizes, key=math.prod)
    images = math.ceil(share * recipe.prompts.per_step * recipe.rollout.images_per_prompt)
    judge.rehearse(prompts[0], np.full((height, width, 3), 128, np.uint8), images=images)


def check_sizes(recipe: RlRecipe, multiple: int) -> None:
    """Refuse sizes that the generator cannot take."""
    for height, width in recipe.rollout.sizes:
        if height % multiple or width % multiple:
            fix = [max(multiple, round(side / multiple) * multiple) for side in (height, width)]
            raise RecipeProblem(
                f"rollout.sizes: {height}x{width} does not fit {recipe.model}, whose sides are multiples of "
                f"{multiple}; the nearest is {fix[0]}x{fix[1]}"
            )


def _close(run: Run, reason: str) -> dict[str, Any]:
    """Test the start and the best checkpoint once, on the same prompts and seeds."""
    run.judge.step = None
    best = best_step(run.history)
    checkpoint.load_roles(run.folder, best, run.policy)
    run.watcher.stage("testing")
    started = time.perf_counter()
    images = run.recipe.evaluation.test_images_per_prompt
    base = run.scores(run.splits.test, "test", images, role="reference")
    trained = run.scores(run.splits.test, "test", images, role="ema")
    summary = _summary(run, reason, best, base, trained, test_seconds=time.perf_counter() - started)
    samples.keep_test(run.folder.path, base, trained)
    write_whole(run.folder.path / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_report(run.folder.path)
    return summary


def _summary(run: Run, reason: str, best: int, base: Scores, trained: Scores, *, test_seconds: float) -> dict[str, Any]:
    rows = run.history
    seconds = sum(value for row in rows for name, value in row.items() if name.startswith("seconds/"))
    return {
        "recipe": run.recipe.name,
        "seed": run.recipe.seed,
        "ended": reason,
        "steps": run.step,
        "best_step": best,
        "wall_seconds": round(seconds + test_seconds, 1),
        "held_out": compare(base, trained),
        "diversity": {"base": base.diversity, "trained": trained.diversity},
        "images": _total(rows, "images", "validation/images") + base.reward_PG.size + trained.reward_PG.size,
        "verdicts": _total(rows, "verdicts", "validation/verdicts") + base.verdicts + trained.verdicts,
        "judge_errors": _total(rows, "judge/errors", "validation/errors") + base.errors + trained.errors,
        "cost_usd": run.judge.cost(),
    }


def _total(rows: list[dict[str, Any]], *names: str) -> int:
    return sum(row.get(name, 0) for row in rows for name in names)
