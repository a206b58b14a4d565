"""How soon a validation reward is reached: `python -m benchmarks.time_to_reward`.

The shipped recipe of the embedded world against two others on the same base, prompts, pictures a step and judge:

- `reference`: as DiffusionNFT's published code trains: nine of ten timesteps of a sampler of ten, every image noised by
  itself, the reference policy's forward always, judging only when all pictures are made;
- `high noise`: four timesteps from the noisy half, no reference forward, as Flow-Factory offers.

Each gets the same sweep of learning rates on seed 0, and its best one on all seeds; learning rates fall linearly over
what its wall time has room for. The reference has twice the wall time of the others, so that it can still arrive where
they have been. Seconds are those of rollout, judge and training only.

With `--kept FILE` every finished run is written down as it ends, and a later call with the same FILE goes on there.
"""

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.common import Quick, machine, show
from benchmarks.controls import CONTROLS, run_control
from lens_core.recipes import find_recipe, load_recipe
from lens_core.records import Prompt, Verdict
from lens_core.runs import RunFolder
from lens_rl.job import open_run
from lens_rl.judges.judge import RubricJudge
from lens_rl.plan import make_plan
from lens_rl.recipe import RECIPES, RlRecipe
from lens_rl.stages import Interrupts, Watcher
from lens_rl.trainer import train

PHASES = ("rollout", "judge", "train")
CRITERIA = 9.0
"""Of a picture, for the plan's count of verdicts; the forwards do not depend on it."""
SHARE_OF_GAIN = 0.8
TIMED_STEPS = 3


@dataclass(frozen=True)
class Contestant:
    """A recipe of RL: what differs from the shipped one."""

    changes: tuple[str, ...] = ()
    judges_late: bool = False
    patience: float = 1.0
    """Its wall time, in that of the others."""


CONTESTANTS = {
    "shipped": Contestant(),
    "reference": Contestant(
        ("nft.timesteps=reference", "nft.noise=per_image", "rollout.num_steps=10"), judges_late=True, patience=2.0
    ),
    "high noise": Contestant(("nft.num_timesteps=4", "nft.high_noise_share=0.5", "nft.kl_weight=0")),
}


@dataclass
class Curve:
    """One run: seconds and validation reward at each validation, and seconds by phase."""

    name: str
    lr: float
    seed: int
    seconds: list[float] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def time_to(self, target: float) -> float:
        """Seconds until the reward, drawn as straight lines between validations, first reaches the target; or inf."""
        for place, reward in enumerate(self.reward):
            if reward >= target:
                if place == 0:
                    return 0.0
                before, start, end = self.reward[place - 1], self.seconds[place - 1], self.seconds[place]
                return start + (end - start) * (target - before) / (reward - before)
        return float("inf")

    def at(self, seconds: float) -> float:
        return float(np.interp(seconds, self.seconds, self.reward))


class LateJudge:
    """A judge who is first asked when verdicts are collected: after all pictures of a step are made."""

    def __init__(self, judge: RubricJudge):
        self._judge, self.step = judge, judge.step
        self._waiting: list[tuple[Future[tuple[Verdict, ...]], Prompt, np.ndarray]] = []

    def submit(self, prompt: Prompt, image: np.ndarray) -> "Future[tuple[Verdict, ...]]":
        late: Future[tuple[Verdict, ...]] = Future()
        self._waiting.append((late, prompt, image))
        return late

    def collect(self, pending: Any, where: str) -> Any:
        self._judge.step = self.step
        for late, prompt, image in self._waiting:
            self._judge.submit(prompt, image).add_done_callback(partial(_hand_over, late))
        self._waiting.clear()
        return self._judge.collect(pending, where)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._judge, name)


def _hand_over(late: "Future[tuple[Verdict, ...]]", done: "Future[tuple[Verdict, ...]]") -> None:
    try:
        late.set_result(done.result())
    except Exception as problem:
        late.set_exception(problem)


class Recorder(Watcher):
    """Follows a run into a curve."""

    def __init__(self, curve: Curve):
        self.curve, self._elapsed = curve, 0.0

    def step(self, row: dict[str, Any], seconds: dict[str, float]) -> None:
        for phase in PHASES:
            self.curve.phases[phase] = self.curve.phases.get(phase, 0.0) + seconds.get(phase, 0.0)
            self._elapsed += seconds.get(phase, 0.0)
        self.curve.steps = row["step"]
        if "validation/reward" in row:
            self.curve.seconds.append(self._elapsed)
            self.curve.reward.append(row["validation/reward"])


class Kept:
    """Runs in processes of their own, whose results are kept as lines of JSON: what the file holds is not run again."""

    def __init__(self, pool: ProcessPoolExecutor, file: Path | None):
        self._pool, self._file = pool, file
        lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
        self._known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def submit(self, run: Callable[..., dict[str, Any]], *given: Any) -> "Future[dict[str, Any]]":
        """A future of `run(*given)`, a plain mapping."""
        key = repr((run.__name__, given))
        if key in self._known:
            known: Future[dict[str, Any]] = Future()
            known.set_result(self._known[key])
            return known
        future = self._pool.submit(run, *given)
        future.add_done_callback(partial(self._keep, key))
        return future

    def _keep(self, key: str, done: "Future[dict[str, Any]]") -> None:
        if self._file and not done.cancelled() and not done.exception():
            with self._file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps([key, done.result()]) + "\n")


def run_contestant(name: str, lr: float, seed: int, steps: int, base: Sequence[str]) -> dict[str, Any]:
    """Train for `steps` steps and record a curve's fields.

    In a process of its own: threads and the judge's loop are per process.
    """
    contestant, curve = CONTESTANTS[name], Curve(name, lr, seed)
    recipe = recipe_of(name, base, f"optimizer.lr={lr}", f"seed={seed}", f"steps={steps}")
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder(Path(folder) / "run") as run_folder,
        Interrupts() as interrupts,
        open_run(recipe, run_folder, interrupts, Recorder(curve)) as run,
    ):
        if contestant.judges_late:
            late: Any = LateJudge(run.judge)
            run.judge = late
        train(run)
    return vars(curve)


def room(seconds: float, name: str, base: Sequence[str]) -> dict[str, Any]:
    """How many steps of a contestant its wall time has room for, as timed on a few of them."""
    curve = Curve(**run_contestant(name, 1e-4, 0, TIMED_STEPS, base))
    per_step = sum(curve.phases.values()) / curve.steps
    return {"steps": max(TIMED_STEPS, round(CONTESTANTS[name].patience * seconds / per_step))}


def recipe_of(name: str, base: Sequence[str], *more: str) -> RlRecipe:
    """A contestant's recipe; its guards do not stop it, since all must use up the same time."""
    guards = ("guards.max_drop=1.0", "guards.max_norm_ratio=100", "guards.min_diversity=0.0")
    return load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [*base, *CONTESTANTS[name].changes, *guards, *more])


def main(
    seconds: Annotated[float, typer.Option(help="Wall time of each run, evaluation left out.")] = 300.0,
    seeds: Annotated[int, typer.Option(help="Seeds, from 0.")] = 3,
    lrs: Annotated[str, typer.Option(help="Learning rates of the sweep.")] = "2e-4,4e-4,8e-4",
    jobs: Annotated[int, typer.Option(help="Runs at a time, a core each.")] = 2,
    quick: Quick = False,
    kept: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep finished runs here, and go on from them.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything here too.")] = None,
) -> None:
    """Sweep, race, and print who got where when."""
    base: tuple[str, ...] = ()
    sweep = [float(lr) for lr in lrs.split(",")]
    if quick:
        sizes = ("prompts.validation=34", "prompts.test=34", "prompts.train=60")
        base = ("prompts.per_step=4", "evaluation.every=1", *sizes)
        seconds, seeds, sweep = min(seconds, 3.0), min(seeds, 2), sweep[:2]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        runs = Kept(pool, kept)
        timed = {name: runs.submit(room, seconds, name, base) for name in CONTESTANTS}
        steps = {name: future.result()["steps"] for name, future in timed.items()}
        first = {
            (name, lr): runs.submit(run_contestant, name, lr, 0, steps[name], base)
            for name in CONTESTANTS
            for lr in sweep
        }
        swept = {key: Curve(**future.result()) for key, future in first.items()}
        best = {name: max(sweep, key=lambda lr: _late_reward(swept[name, lr])) for name in CONTESTANTS}
        more = [
            runs.submit(run_contestant, name, best[name], seed, steps[name], base)
            for seed in range(1, seeds)
            for name in CONTESTANTS
        ]
        controls = [runs.submit(run_control, name, seconds, seed, base) for seed in range(seeds) for name in CONTROLS]
        curves = [swept[name, best[name]] for name in CONTESTANTS] + [Curve(**future.result()) for future in more]
        controlled = [future.result() for future in controls]
    _report(curves, list(swept.values()), controlled, seconds, jobs, json_file)


def _late_reward(curve: Curve) -> float:
    """Mean of the last three validations: less luck than the last one, no choosing of the best."""
    return statistics.mean(curve.reward[-3:])


def _report(
    curves: list[Curve],
    swept: list[Curve],
    controlled: list[dict[str, Any]],
    seconds: float,
    jobs: int,
    file: Path | None,
) -> None:
    """Print the race, the whole curves, the sweep and the controls."""
    start = statistics.mean(curve.reward[0] for curve in curves)
    by_name = {name: [curve for curve in curves if curve.name == name] for name in CONTESTANTS}
    reached = {name: statistics.median(_late_reward(curve) for curve in group) for name, group in by_name.items()}
    target = start + SHARE_OF_GAIN * (max(reached["shipped"], reached["reference"]) - start)
    title = f"{machine(torch.device('cpu'))}, {jobs} runs at a time, {seconds:.0f} s each"
    rows = [_row(name, group, target, reached[name]) for name, group in by_name.items()]
    reference = next(row for row in rows if row["recipe"] == "reference")[TO_TARGET]
    for row in rows:
        row["times sooner"] = reference / row[TO_TARGET] if np.isfinite(row[TO_TARGET]) else 0.0
    goal = f"from {start:.3f} to {target:.3f}, {SHARE_OF_GAIN:.0%} of the better gain"
    show(f"{title}; {goal}", rows, None)
    grid = [seconds * part / 10 for part in range(0, 21, 2)]
    show(
        "Validation reward over wall time, median of the seeds",
        [{"recipe": name} | {f"{at:.0f} s": _median_at(group, at) for at in grid} for name, group in by_name.items()],
        None,
    )
    rates = [{"recipe": c.name, "lr": c.lr, "steps": c.steps, "reward": _late_reward(c)} for c in swept]
    show("The sweep, seed 0", rates, None)
    show("Controls with the same wall time", controlled, None)
    if file:
        content = {
            "title": title,
            "target": target,
            "rows": rows,
            "curves": [vars(curve) for curve in [*swept, *(c for c in curves if c.seed)]],
            "controls": controlled,
        }
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _median_at(group: list[Curve], seconds: float) -> float | str:
    """The median reward after so long; nothing where the runs were shorter."""
    reached = [curve.at(seconds) for curve in group if seconds <= 1.05 * curve.seconds[-1]]
    return statistics.median(reached) if reached else ""


TO_TARGET = "median s"


def _row(name: str, group: list[Curve], target: float, reached: float) -> dict[str, Any]:
    times = sorted(curve.time_to(target) for curve in group)
    total = sum(sum(curve.phases.values()) for curve in group)
    plan = make_plan(recipe_of(name, ()), CRITERIA)
    return {
        "recipe": name,
        "lr": group[0].lr,
        "steps": float(group[0].steps),
        TO_TARGET: statistics.median(times),
        "range s": f"{times[0]:.0f}-{times[-1]:.0f}",
        "reached": reached,
        "forwards/image": plan.forwards_per_image,
        **{phase: sum(curve.phases[phase] for curve in group) / total for phase in PHASES},
    }


if __name__ == "__main__":
    typer.run(main)
