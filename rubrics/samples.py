"""Facts to try a rubric on: those that the caller drew from a tree, or combinations of a rubric's own examples."""

import itertools
import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rubrics.rubric import Fact, RubricFile

MOST = 2000
"""Combinations tried where there are more of them; drawn with a fixed seed, so that a finding comes back."""
SOME_PROMPT = "a picture"


@dataclass(frozen=True, slots=True)
class Sample:
    """What one prompt says, and the facts behind it."""

    prompt: str
    facts: Mapping[str, Fact]


def samples_of(file: RubricFile) -> list[Sample]:
    """Combinations of the facts that have examples. A fact that some template takes for optional is absent in some."""
    optional = _optional(file)
    choices = {name: [*values, *([None] if name in optional else [])] for name, values in file.facts.items() if values}
    return [
        Sample(SOME_PROMPT, {name: value for name, value in zip(choices, chosen, strict=True) if value is not None})
        for chosen in _combinations(list(choices.values()))
    ]


def without_facts(file: RubricFile) -> list[Sample]:
    """A prompt that says no facts, for rubrics with criteria that wait for one."""
    waits = any(re.search(r"is (?:not defined|undefined)", one.when or "") for one in file.criteria)
    return [Sample(SOME_PROMPT, {})] if waits else []


def first_examples(file: RubricFile) -> dict[str, Fact]:
    """One value of each fact that has examples."""
    return {name: values[0] for name, values in file.facts.items() if values}


def _combinations(choices: list[list[Fact | None]]) -> Iterable[tuple[Fact | None, ...]]:
    if math.prod(map(len, choices)) <= MOST:
        return itertools.product(*choices)
    dice = random.Random(0)
    # The first ones go through every value of every fact; the rest are any.
    longest = max(map(len, choices))
    each = [tuple(values[turn % len(values)] for values in choices) for turn in range(longest)]
    return [*each, *(tuple(map(dice.choice, choices)) for _ in range(MOST - longest))]


def _optional(file: RubricFile) -> set[str]:
    """Facts that a template or condition asks after before it uses them."""
    sources = " ".join(part for one in file.criteria for part in (one.when or "", one.text, str(one.check or "")))
    return {
        name
        for name in file.facts
        if re.search(rf"\b{re.escape(name)}\s*(?:is (?:not )?(?:un)?defined|\|\s*d(?:efault)?\b)", sources)
    }
