"""What the wall time of an RL run buys without RL: two controls for `benchmarks.time_to_reward`.

- `more pretraining`: the base goes on training on its corpus (new pictures of training scenes, as flawed as before);
- `best of the base`: half of the time the base makes pictures of training prompts and the judge picks those that pass
  every criterion; the other half it is fine-tuned on them.

Both use the pretraining's own trainer at a tenth of its learning rates, and are scored on the validation prompts,
pictures and seeds of the RL runs.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base_model.lens import LensGenerator
from base_model.pretraining.loader import CaptionedImage, LatentSet
from base_model.pretraining.recipe import PretrainRecipe
from base_model.pretraining.train import Trainer
from lens_core.recipes import find_recipe, load_recipe
from lens_core.runs import RunFolder
from lens_core.seeds import seed_of
from lens_rl.evaluation import evaluate
from lens_rl.judges import open_backend
from lens_rl.judges.judge import RubricJudge
from lens_rl.judges.store import VerdictStore
from lens_rl.models import EMBEDDED, open_generator
from lens_rl.prompts import PromptSplits, PromptStream, load_splits
from lens_rl.recipe import RECIPES, RlRecipe
from lens_rl.rewards import WeightedRewards
from lens_rl.rollout import FeatureBank, plan, roll_out
from pipelines.data.shapes import samples
from rubrics.rubric import Rubric

LR_SHARE = 0.1
FRESH_PICTURES = 12_000
TIMED_STEPS = 10


class Control:
    """One control run: the base, the judge, and the prompts of the RL recipe."""

    def __init__(self, recipe: RlRecipe, folder: Path):
        rubric = Rubric.load(recipe.rubric.path)
        self.recipe, self.folder = recipe, folder
        self.splits: PromptSplits = load_splits(recipe.prompts, rubric)
        generator = open_generator(recipe.model)
        assert isinstance(generator, LensGenerator)
        self.generator = generator
        self.features = FeatureBank(generator)
        self.rewards = WeightedRewards(recipe.rewards)
        store = VerdictStore(folder / "verdicts.sqlite")
        self.judge = RubricJudge(open_backend(recipe.judge), rubric, store, concurrency=recipe.judge.concurrency)

    def score(self) -> float:
        """Mean validation reward, on the pictures of an RL run of the same seed."""
        return evaluate(
            self.generator,
            self.features,
            self.judge,
            self.rewards,
            self.splits.validation,
            recipe=self.recipe.evaluation,
            images_per_prompt=self.recipe.evaluation.images_per_prompt,
            sizes=self.recipe.rollout.sizes,
            batch_size=self.recipe.rollout.batch_size,
            seed=self.recipe.seed,
            split="validation",
        ).mean

    def train(self, corpus: LatentSet, seconds: float) -> int:
        """Fine-tune on a corpus for so long, timed on its first steps; leaves the ema in place. Returns the steps."""
        started = time.perf_counter()
        self._run(corpus, "timing", steps=TIMED_STEPS)
        per_step = (time.perf_counter() - started) / TIMED_STEPS
        return self._run(corpus, "training", steps=max(1, round(seconds / per_step) - TIMED_STEPS))

    def passed(self, seconds: float) -> Iterator[CaptionedImage]:
        """Pictures of training prompts that pass every criterion, made for so long."""
        rollout, started, step = self.recipe.rollout, time.perf_counter(), 0
        stream = PromptStream(self.splits.train, per_step=self.recipe.prompts.per_step, seed=self.recipe.seed)
        while time.perf_counter() - started < seconds:
            step += 1
            orders = plan(
                stream.draw(step),
                images_per_prompt=rollout.images_per_prompt,
                sizes=rollout.sizes,
                size_mode=rollout.size_mode,
                seed=seed_of(self.recipe.seed, "control", step),
            )
            made = roll_out(
                self.generator,
                self.features,
                orders,
                num_steps=rollout.num_steps,
                sampler=rollout.sampler,
                batch_size=rollout.batch_size,
            )
            asked = [(order, one, self.judge.submit(order.prompt, one.image)) for order, one in made]
            for order, one, future in asked:
                if all(verdict.value for verdict in future.result()):
                    key = f"{step}-{order.group}-{order.index}"
                    yield _sample(key, one.image, {"dense": [order.prompt.text]})

    def _run(self, corpus: LatentSet, name: str, *, steps: int) -> int:
        base = load_recipe(PretrainRecipe, EMBEDDED["shapes"] / "recipe.yaml")
        changes = [
            f"transformer.lr={LR_SHARE * base.transformer.lr}",
            f"transformer.muon_lr={LR_SHARE * base.transformer.muon_lr}",
            f"transformer.steps={steps}",
            f"save_every={steps}",
            f"seed={self.recipe.seed + 1}",
        ]
        recipe = load_recipe(PretrainRecipe, EMBEDDED["shapes"] / "recipe.yaml", changes)
        with RunFolder(self.folder / name) as folder:
            trainer = Trainer(recipe, self.generator, folder)
            trainer.train(corpus, lambda *_: None)
            trainer.swap_ema()
        return steps


def _sample(key: str, image: np.ndarray, captions: Mapping[str, Sequence[str]]) -> CaptionedImage:
    texts = {kind: list(some) for kind, some in captions.items()}
    return CaptionedImage(__key__=key, __restore_key__=(), image=image, captions=texts)


def more_pretraining(control: Control, seconds: float) -> dict[str, Any]:
    base = load_recipe(PretrainRecipe, EMBEDDED["shapes"] / "recipe.yaml")
    fresh = samples(
        FRESH_PICTURES,
        control.recipe.seed + 1,
        "train",
        sizes=base.corpus.sizes,
        flawed_share=base.corpus.flawed_share,
    )
    pictures = (_sample(str(number), one.image, one.captions) for number, one in enumerate(fresh))
    return {"steps": control.train(LatentSet(pictures, control.generator.latents), seconds)}


def best_of_the_base(control: Control, seconds: float) -> dict[str, Any]:
    kept = list(control.passed(seconds / 2))
    if not kept:
        return {"steps": 0, "pictures": 0}
    steps = control.train(LatentSet(iter(kept), control.generator.latents), seconds / 2)
    return {"steps": steps, "pictures": len(kept)}


CONTROLS: dict[str, Callable[[Control, float], dict[str, Any]]] = {
    "more pretraining": more_pretraining,
    "best of the base": best_of_the_base,
}


def run_control(name: str, seconds: float, seed: int, base: tuple[str, ...]) -> dict[str, Any]:
    """A row: reward before and after. In a process of its own."""
    recipe = load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [*base, f"seed={seed}"])
    torch.set_num_threads(recipe.threads or 1)
    with tempfile.TemporaryDirectory() as folder:
        control = Control(recipe, Path(folder))
        try:
            before = control.score()
            took = CONTROLS[name](control, seconds)
            after = control.score()
        finally:
            control.judge.close()
    return {"control": name, "seed": seed, "before": before, "after": after, "gain": after - before} | {
        "steps": took["steps"],
        "pictures": took.get("pictures", FRESH_PICTURES),
    }
