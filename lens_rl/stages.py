"""The stages of a step, one method each, over the parts of one run. The trainer gives their order."""

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.generator import Generator
from lens_core.records import Prompt, Sample, Verdict
from lens_core.runs import RunFolder, RunProblem
from lens_core.seeds import seed_of
from lens_rl import checkpoint, learning, nft, samples
from lens_rl.evaluation import Scores, evaluate
from lens_rl.guards import best_step, reason_to_stop
from lens_rl.judges.judge import RubricJudge
from lens_rl.policy import Policy
from lens_rl.prompts import PromptSplits, PromptStream
from lens_rl.recipe import RlRecipe
from lens_rl.rewards import WeightedRewards
from lens_rl.rollout import FeatureBank, Order, diversity, plan, roll_out
from lens_rl.watch import Judged, Watch

Pending = tuple[Order, Sample, "Future[tuple[Verdict, ...]]"]


class Clock:
    """Seconds of each phase of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


class Interrupts:
    """SIGINT and SIGTERM are remembered and obeyed at the end of the step; a second one at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number


class Watcher:
    """What a display may hear of a run. This one says nothing."""

    def step(self, row: dict[str, Any], seconds: dict[str, float]) -> None: ...

    def stage(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


@dataclass
class Run:
    """Everything one run holds. `lens_rl.job.open_run` builds it."""

    recipe: RlRecipe
    folder: RunFolder
    generator: Generator
    policy: Policy
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    splits: PromptSplits
    prompts: PromptStream
    judge: RubricJudge
    watch: Watch
    rewards: WeightedRewards
    features: FeatureBank
    interrupts: Interrupts
    watcher: Watcher = field(default_factory=Watcher)
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)
    _parts: dict[str, list[float]] = field(default_factory=dict)
    _share: float = 1.0
    _obeyed: int | None = None

    def start(self) -> None:
        """Go on from the last checkpoint, or judge the untrained model and make the first one."""
        saved = self.folder.checkpoints()
        if saved:
            self.step = saved[-1]
            checkpoint.load(self.folder, self.step, self.policy, self.optimizer)
            self.folder.forget_after(self.step)
            self.history = self.folder.metrics()
            return
        self.folder.forget_after(-1)
        clock = self.clock(0)
        with clock.phase("evaluate"):
            self.validate(0)
        self.log(0, clock)
        self.save(0)

    def clock(self, step: int) -> Clock:
        """Begin the metrics row of a step."""
        self.row, self._parts = {"step": step}, {}
        self.judge.step = step
        return Clock()

    def roll_out(self, prompts: Sequence[Prompt], step: int) -> Iterator[tuple[Order, Sample]]:
        """Pictures of the step's prompts, as they are finished."""
        rollout = self.recipe.rollout
        orders = plan(
            prompts,
            images_per_prompt=rollout.images_per_prompt,
            sizes=rollout.sizes,
            size_mode=rollout.size_mode,
            seed=seed_of(self.recipe.seed, "rollout", step),
        )
        self.watch.choose(orders, step)
        return roll_out(
            self.generator,
            self.features,
            orders,
            num_steps=rollout.num_steps,
            sampler=rollout.sampler,
            batch_size=rollout.batch_size,
        )

    def ask(self, order: Order, sample: Sample) -> "Future[tuple[Verdict, ...]]":
        """Hand a picture to the judge, who works while the next ones are made."""
        self.watch.ask(order, sample)
        return self.judge.submit(order.prompt, sample.image)

    def collect(self, pending: Sequence[Pending]) -> list[Judged]:
        """Wait for the verdicts; cursor order, whatever order they came in.

        Raises JudgeProblem when more verdicts are errors than the recipe allows, or the budget is spent.
        """
        try:
            return self._collect(pending)
        except RunProblem:
            self._keep()  # this step has not touched the weights, so what the steps before it learned is kept
            raise

    def _collect(self, pending: Sequence[Pending]) -> list[Judged]:
        asked = [(order.prompt, future) for order, _, future in pending]
        answered = self.judge.collect(asked, f"step {self.row['step']}")
        judged = [(order, sample, verdicts) for (order, sample, _), verdicts in zip(pending, answered, strict=True)]
        judged.sort(key=lambda item: (item[0].group, item[0].index))
        verdicts = [verdict for _, _, verdicts in judged for verdict in verdicts]
        self.row |= {
            "images": len(judged),
            "verdicts": len(verdicts),
            "judge/errors": sum(verdict.value is None for verdict in verdicts),
            "judge/tokens": sum(verdict.tokens for verdict in verdicts),
            "guard/diversity": diversity((order, sample) for order, sample, _ in judged),
        }
        costs = [verdict.cost for verdict in verdicts if verdict.cost is not None]
        if len(costs) == len(verdicts):
            self.row["judge/cost_usd"] = sum(costs)
        self.row |= self.watch.compare(judged, self.history)
        return judged

    def reward(self, judged: Sequence[Judged]) -> Tensor:
        """reward_PG, float64, NaN for an image without a reward."""
        groups = 1 + max(order.group for order, _, _ in judged)
        reward_PG = torch.full((groups, self.recipe.rollout.images_per_prompt), math.nan, dtype=torch.float64)
        for order, sample, verdicts in judged:
            value = self.rewards(order.prompt, sample, verdicts)
            if value is not None:
                reward_PG[order.group, order.index] = value
        teaches_P = nft.teaches(reward_PG)
        self.row |= {
            "reward": float(reward_PG.nanmean()),
            "images/without_reward": int(reward_PG.isnan().sum()),
            "groups/skipped": int((~teaches_P).sum()),
        }
        return reward_PG

    def lessons(
        self, judged: Sequence[Judged], reward_PG: Tensor, optimality_PG: Tensor, step: int
    ) -> Iterator[learning.Lesson]:
        """The batches to learn from: groups that differ inside, images that have a reward."""
        recipe = self.recipe
        teaches_P = nft.teaches(reward_PG)
        useful = [
            (order, sample)
            for order, sample, _ in judged
            if teaches_P[order.group] and not reward_PG[order.group, order.index].isnan()
        ]
        timesteps = learning.timesteps_per_image(recipe.nft, recipe.rollout.num_steps)
        # Skipped images stay in the denominator, so skipping them changes the time and not the gradient.
        self._share = 1.0 / (max(int((~reward_PG.isnan()).sum()), 1) * timesteps)
        return learning.lessons(
            useful,
            optimality_PG,
            generator=self.generator,
            features=self.features,
            recipe=recipe.nft,
            num_sampler_steps=recipe.rollout.num_steps,
            batch_size=recipe.rollout.batch_size,
            seed=seed_of(recipe.seed, "train", step),
        )

    def losses(self, lesson: learning.Lesson) -> learning.Losses:
        """The losses of one lesson. The guards look at the reference once a step, the KL always."""
        first = "guard/norm_ratio" not in self._parts
        return learning.losses(self.policy, self.generator, lesson, self.recipe.nft, measure_reference=first)

    def backward(self, losses: learning.Losses) -> None:
        """Add one lesson's share to the gradient. Raises RunProblem at the first value that is not finite."""
        loss = losses.policy_B.sum()
        if losses.kl_B is not None and self.recipe.nft.kl_weight > 0:
            loss = loss + self.recipe.nft.kl_weight * losses.kl_B.sum()
        loss = loss * self._share
        self._refuse_nan("loss", float(loss.detach()))
        self.accelerator.backward(loss)
        self._note("loss/policy", float(losses.policy_B.detach().mean()))
        self._note("guard/old_distance", losses.old_distance)
        if losses.kl_B is not None and losses.norm_ratio is not None:
            self._note("guard/kl", float(losses.kl_B.detach().mean()))
            self._note("guard/norm_ratio", losses.norm_ratio)

    def optimizer_step(self, step: int) -> None:
        """Clip, step, and clear; nothing moves where no group taught anything."""
        recipe = self.recipe.optimizer
        if "loss/policy" not in self._parts:
            return
        norm = float(self.accelerator.clip_grad_norm_(self.policy.parameters(), recipe.clip_norm) or 0.0)
        self._refuse_nan("gradient norm", norm)
        lr = recipe.lr * (1 - (step - 1) / self.recipe.steps if recipe.lr_decay == "linear" else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.row |= {"lr": lr, "gradient_norm": norm}

    def validate(self, step: int) -> None:
        """Score the ema weights on the validation prompts, when it is time."""
        if step % self.recipe.evaluation.every and step != self.recipe.steps:
            return
        scores = self.scores(self.splits.validation, "validation", self.recipe.evaluation.images_per_prompt)
        self.row |= {
            "validation/reward": scores.mean,
            "validation/diversity": scores.diversity,
            "validation/images": scores.reward_PG.size,
            "validation/verdicts": scores.verdicts,
            "validation/errors": scores.errors,
        }
        self.row |= {f"validation/{kind}": share for kind, share in scores.shares.items()}
        samples.keep_validation(self.folder.path, step, scores)
        columns, passed = self.watch.show_canaries([(order.prompt, one.image) for order, one, _ in scores.made], step)
        self.row |= columns
        for line in passed:
            self.watcher.warn(line)

    def scores(self, prompts: Sequence[Prompt], split: str, images_per_prompt: int, role: Any = "ema") -> Scores:
        """What a role's weights get on held-out prompts."""
        with self.policy.role(role):
            return evaluate(
                self.generator,
                self.features,
                self.judge,
                self.rewards,
                prompts,
                recipe=self.recipe.evaluation,
                images_per_prompt=images_per_prompt,
                sizes=self.recipe.rollout.sizes,
                batch_size=self.recipe.rollout.batch_size,
                seed=self.recipe.seed,
                split=split,
            )

    def log(self, step: int, clock: Clock) -> None:
        """One row of metrics, to the file, the trackers and the watcher."""
        self.row |= {name: sum(values) / len(values) for name, values in sorted(self._parts.items())}
        self.row |= {f"seconds/{name}": round(value, 4) for name, value in clock.seconds.items()}
        self.step = step
        self.history.append(self.row)
        self.folder.log(self.row)
        self.accelerator.log({name: value for name, value in self.row.items() if name != "step"}, step=step)
        self.watcher.step(self.row, clock.seconds)

    def save(self, step: int) -> None:
        """A checkpoint, when it is time, when it is the best so far, or when the run is about to end."""
        self._obeyed = self.interrupts.received
        due = step % self.recipe.save_every == 0 or step == self.recipe.steps or self._obeyed is not None
        best = best_step(self.history)
        if due or best == step:
            self._keep()
            self.folder.prune({step, best})

    def ended(self) -> str | None:
        """Why there is no next step, or None. Asked before each step, so a stopped run stays stopped."""
        finished = "finished" if self.step == self.recipe.steps else None
        return self.interrupted() or reason_to_stop(self.history, self.recipe.guards) or finished

    def interrupted(self) -> str | None:
        """Which signal ended the run, once what it interrupted is saved."""
        return None if self._obeyed is None else f"interrupted by {signal.Signals(self._obeyed).name}"

    def _keep(self) -> None:
        """Make sure that there is a checkpoint of the last whole step."""
        if self.step not in self.folder.checkpoints():
            checkpoint.save(self.folder, self.step, self.policy, self.optimizer, self.generator)

    def _note(self, name: str, value: float) -> None:
        self._parts.setdefault(name, []).append(value)

    def _refuse_nan(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise RunProblem(
                f"the {what} of step {self.row['step']} is {value}: stopped before it could touch the weights. "
                f"The checkpoint of step {self.folder.checkpoints()[-1]} is good; try a lower optimizer.lr."
            )
