"""Prompt groups with a cursor: which prompts a step asks for, from a taxonomy tree or your own files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lens_core.recipes import RecipeProblem
from lens_core.records import Prompt
from lens_core.seeds import seed_of
from lens_rl.recipe import Prompts
from rubrics.rubric import Rubric
from taxonomy.prompt_set import find_set, load_prompts, rubric_of_set, split_of_prompt
from taxonomy.sampler import SHARES, sample_splits
from taxonomy.tree import load_tree


@dataclass(frozen=True, slots=True)
class PromptSplits:
    """Three lists that share no prompt: to train on, to select and stop by, to report on."""

    train: tuple[Prompt, ...]
    validation: tuple[Prompt, ...]
    test: tuple[Prompt, ...]


class PromptStream:
    """Endless prompts in a new order every epoch. Its cursor is the step, so there is nothing to save."""

    def __init__(self, prompts: Sequence[Prompt], *, per_step: int, seed: int):
        self._prompts, self._per_step, self._seed = prompts, per_step, seed

    def draw(self, step: int) -> list[Prompt]:
        """The prompts of `step`, counted from 1."""
        first = (step - 1) * self._per_step
        return [self._at(position) for position in range(first, first + self._per_step)]

    def _at(self, position: int) -> Prompt:
        epoch, place = divmod(position, len(self._prompts))
        order = np.random.default_rng(seed_of(self._seed, "epoch", epoch)).permutation(len(self._prompts))
        return self._prompts[order[place]]


def load_splits(recipe: Prompts, rubric: Rubric) -> PromptSplits:
    """The prompts of a run, each with its criteria. Raises ValueErrors that name the file and the fix."""
    if recipe.tree is not None:
        tree = load_tree(recipe.tree)
        counts = {"train": recipe.train, "validation": recipe.validation, "test": recipe.test}
        # The prompts are the same for every seed of a run, so that runs can be compared.
        drawn = sample_splits(tree, counts, seed=0)
        return PromptSplits(
            **{
                split: tuple(
                    Prompt(
                        draw.id,
                        draw.text,
                        draw.category,
                        draw.dimensions,
                        rubric.criteria(draw.text, draw.facts),
                        draw.facts,
                    )
                    for draw in draws
                )
                for split, draws in drawn.items()
            }
        )
    if recipe.set is not None:
        return _split_set(recipe.set, recipe, rubric)
    assert recipe.file and recipe.validation_file and recipe.test_file  # the recipe saw to it
    splits = PromptSplits(
        train=_from_file(recipe.file, rubric),
        validation=_from_file(recipe.validation_file, rubric)[: recipe.validation],
        test=_from_file(recipe.test_file, rubric)[: recipe.test],
    )
    _refuse_overlap(splits)
    return splits


def _split_set(name: str, recipe: Prompts, rubric: Rubric) -> PromptSplits:
    """A set in three parts. An id decides, so that a prompt is in one part whatever the set's size and the seed.

    A set says which rubric wrote its criteria; another rubric of the recipe writes them anew, from each prompt's facts.
    """
    path = find_set(name)
    anew = rubric_of_set(path) not in (None, rubric.hash)
    parts: dict[str, list[Prompt]] = {split: [] for split in SHARES}
    for prompt in _from_file(str(path), rubric, anew=anew):
        parts[split_of_prompt(prompt)].append(prompt)
    for split, wanted in (("train", 1), ("validation", recipe.validation), ("test", recipe.test)):
        if len(parts[split]) < wanted:
            raise RecipeProblem(
                f"prompts.set {path} has {len(parts[split])} prompts in its {split} split, and {wanted} are needed: "
                f"take a larger set, or lower prompts.{split}"
            )
    return PromptSplits(
        train=tuple(parts["train"]),
        validation=tuple(parts["validation"][: recipe.validation]),
        test=tuple(parts["test"][: recipe.test]),
    )


def _from_file(path: str, rubric: Rubric, *, anew: bool = False) -> tuple[Prompt, ...]:
    """Prompts of a file; those without criteria, or all of them, get the rubric's."""
    return tuple(
        prompt if prompt.criteria and not anew else replace(prompt, criteria=rubric.criteria(prompt.text, prompt.facts))
        for prompt in load_prompts(Path(path))
    )


def _refuse_overlap(splits: PromptSplits) -> None:
    held_out = {prompt.text for prompt in (*splits.validation, *splits.test)}
    shared = sorted(held_out & {prompt.text for prompt in splits.train})
    if shared:
        raise RecipeProblem(
            f"prompts.file shares {len(shared)} prompts with the held-out files, for example {shared[0]!r}: "
            "a gain on prompts that were trained on says nothing"
        )
