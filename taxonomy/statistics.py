"""What a prompt set covers: its categories, sub-categories, dimensions, lengths and criteria, counted."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lens_core.records import Prompt
from taxonomy.faithful import number_of_words

MOST_COMMON = 12
"""Of each fact, how many of its values are listed."""
LISTED = ("count", "colour", "relation", "view", "composition", "light", "style")
"""Facts whose values are counted."""


@dataclass
class Statistics:
    """Counts of one set; categories and dimensions in the order in which they first come."""

    prompts: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    sub_categories: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Prompts of each sub-category by category, where the facts name it."""
    dimensions: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Prompts that describe each dimension, by category."""
    dimensions_each: Counter[int] = field(default_factory=Counter)
    """Prompts by how many dimensions they describe."""
    words_each: Counter[int] = field(default_factory=Counter)
    criteria_each: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    """Criteria of each kind."""
    values: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How often each value of the listed facts comes."""

    def add(self, prompt: Prompt) -> None:
        category = prompt.category or "none"
        self.prompts += 1
        self.categories[category] += 1
        self.dimensions[category].update(prompt.dimensions)
        self.dimensions_each[len(prompt.dimensions)] += 1
        self.words_each[number_of_words(prompt.text)] += 1
        self.criteria_each[len(prompt.criteria)] += 1
        self.kinds.update(criterion.kind for criterion in prompt.criteria)
        if sub_category := prompt.facts.get("sub_category"):
            self.sub_categories[category][str(sub_category)] += 1
        for name in LISTED:
            if name in prompt.facts:
                self.values[name][str(prompt.facts[name])] += 1

    def all_dimensions(self) -> list[str]:
        return list(dict.fromkeys(name for counts in self.dimensions.values() for name in counts))

    def plain(self) -> dict[str, Any]:
        """The counts as JSON data."""
        return {
            "prompts": self.prompts,
            "categories": dict(self.categories),
            "sub_categories": {name: dict(counts) for name, counts in self.sub_categories.items()},
            "dimensions": {name: dict(counts) for name, counts in self.dimensions.items()},
            "dimensions_each": _sorted(self.dimensions_each),
            "words_each": _sorted(self.words_each),
            "criteria_each": _sorted(self.criteria_each),
            "kinds": dict(self.kinds.most_common()),
            "values": {name: dict(counts.most_common(MOST_COMMON)) for name, counts in self.values.items()},
        }


def statistics(prompts: Sequence[Prompt]) -> Statistics:
    found = Statistics()
    for prompt in prompts:
        found.add(prompt)
    return found


def mean(counts: Counter[int]) -> float:
    """The mean of counted numbers; 0 where there are none."""
    return sum(value * n for value, n in counts.items()) / (counts.total() or 1)


def _sorted(counts: Counter[int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}
