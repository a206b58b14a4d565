"""Seeded, resumable draws from an item tree: each is a brief, the facts that a writer puts into words.

The i-th brief depends on the tree, the seed and i alone. At every i, each category, and in it each sub-category,
stands within one of its share, so that the first half of a set is a balanced set too.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np

from lens_core.recipes import RecipeProblem
from lens_core.seeds import seed_of
from taxonomy.item_files import DIMENSIONS, Item, Manner, SubCategory
from taxonomy.items import ItemCategory, ItemTree, check_quotas

Word = TypeVar("Word", str, int)

MOST_DIMENSIONS = 4
FRAME_FACTS = (2, 3)
"""How many facts of the whole picture a prompt states, such as its light and its view."""

_ONE_OWNER = {"its", "his", "her", "itself", "himself", "herself", "one"}
"""Words of an action that speak of a single thing: such an action is drawn for one thing only."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What is asked for, before it is in words.

    `facts` holds `item`, `items`, `count`, `manner`, and those drawn of `attribute`, `colour`, `action`, `relation`
    with `other`, `text`, `setting` and the manner's frame.
    """

    id: str
    category: str
    sub_category: str
    dimensions: tuple[str, ...]
    facts: Mapping[str, str | int]
    scene: str
    index: int
    attempt: int = 0


def briefs(tree: ItemTree, n: int, seed: int, start: int = 0) -> Iterator[Brief]:
    """Briefs `start` to `start + n`, one item each. Raises RecipeProblem where a category has too few items."""
    check_quotas(tree, start + n)
    return islice(_stream(tree, seed, {}), start, start + n)


def adapted_briefs(tree: ItemTree, n: int, seed: int, interest: Mapping[tuple[str, str], float]) -> Iterator[Brief]:
    """`n` briefs of which each (category, sub-category) has a share that grows with its interest; see `interest_in`.

    An item may come again, each time with other facts.
    """
    return islice(_stream(tree, seed, interest), n)


def redraw(tree: ItemTree, brief: Brief, seed: int) -> Brief:
    """Other facts for the same item, for a text that could not be used."""
    category = next(c for c in tree.categories if c.name == brief.category)
    place = next(place for place, branch in enumerate(category.branches) if branch.name == brief.sub_category)
    item = next(item for item in category.branches[place].items if item.one == brief.facts["item"])
    turn = _turn_of(brief.id)
    return _brief(tree, category, place, item, turn, seed, brief.index, brief.attempt + 1)


def interest_in(tree: ItemTree, pass_rates: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """How much there is to learn in each branch, from the pass rates of its prompts by their ids.

    A prompt that always or never passes teaches nothing; its interest is 4 p (1 - p), which is 1 at one half. Branches
    without a known prompt get the mean, and none falls under a tenth of it. Raises RecipeProblem where no id is known.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for category in tree.categories:
        for branch in category.branches:
            ids = {scene_id(tree.name, _scene(category.name, item.one)) for item in branch.items}
            rates = [rate for id_, rate in pass_rates.items() if id_.partition("-")[0] in ids]
            if rates:
                found[category.name, branch.name] = [4 * rate * (1 - rate) for rate in rates]
    if not found:
        raise RecipeProblem(f"none of the {len(pass_rates)} pass rates is of a prompt of tree {tree.name!r}")
    means = {key: sum(values) / len(values) for key, values in found.items()}
    mean = sum(means.values()) / len(means)
    if mean == 0:
        raise RecipeProblem("every pass rate is 0 or 1: there is nothing to draw more of")
    every = [(category.name, branch.name) for category in tree.categories for branch in category.branches]
    return {key: max(means.get(key, mean) / mean, 0.1) for key in every}


def apportion(shares: Sequence[float]) -> Iterator[int]:
    """Endless choices among the shares, which add up to 1; every choice is within one of its share at all times.

    The rule is Tijdeman's for the chairman assignment problem (Discrete Mathematics 32, 1980): of those that may be
    chosen without running ahead, the one that would fall behind soonest.
    """
    if len(shares) == 1:
        while True:
            yield 0
    slack = 1 / (2 * len(shares) - 2)
    taken = [0] * len(shares)
    step = 0
    while True:
        step += 1
        behind = [share * step - count for share, count in zip(shares, taken, strict=True)]
        # The small allowance keeps rounding from refusing a choice that is exactly due.
        due = [i for i, lag in enumerate(behind) if lag >= slack - 1e-9] or [
            max(range(len(shares)), key=behind.__getitem__)
        ]
        chosen = min(due, key=lambda i: ((1 - slack - behind[i]) / shares[i] if shares[i] else float("inf"), i))
        taken[chosen] += 1
        yield chosen


def scene_id(tree: str, scene: str) -> str:
    """The id of an item's first prompt; splits go by it, so an item stays in one split whatever is said of it."""
    return hashlib.sha256(f"{tree}\x1f{scene}".encode()).hexdigest()[:12]


@dataclass
class _Branch:
    """The endless items of one branch: all of them in a seeded order, then again."""

    category: ItemCategory
    place: int
    order: list[int]
    drawn: int = field(default=0)

    def next(self) -> tuple[Item, int]:
        """An item, and how often it came before."""
        turn, place = divmod(self.drawn, len(self.order))
        self.drawn += 1
        return self.category.branches[self.place].items[self.order[place]], turn


def _stream(tree: ItemTree, seed: int, interest: Mapping[tuple[str, str], float]) -> Iterator[Brief]:
    weights = [
        [len(b.items) / c.size * interest.get((c.name, b.name), 1.0) for b in c.branches] for c in tree.categories
    ]
    branches = [[_Branch(c, p, _order(tree, c, p, seed)) for p in range(len(c.branches))] for c in tree.categories]
    categories = apportion(_shares([c.quota * sum(w) for c, w in zip(tree.categories, weights, strict=True)]))
    within = [apportion(_shares(w)) for w in weights]
    for index, number in enumerate(categories):
        branch = branches[number][next(within[number])]
        item, turn = branch.next()
        yield _brief(tree, branch.category, branch.place, item, turn, seed, index, 0)


def _shares(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def _order(tree: ItemTree, category: ItemCategory, place: int, seed: int) -> list[int]:
    branch = category.branches[place]
    random = np.random.default_rng(seed_of(tree.name, seed, "items", category.name, branch.name))
    return random.permutation(len(branch.items)).tolist()


def _brief(
    tree: ItemTree, category: ItemCategory, place: int, item: Item, turn: int, seed: int, index: int, attempt: int
) -> Brief:
    branch, manner = category.branches[place], tree.head.manners[category.manners[place]]
    scene = _scene(category.name, item.one)
    random = np.random.default_rng(seed_of(tree.name, seed, scene, turn, attempt))
    dimensions = _dimensions(category, branch, manner, random)
    facts = {"item": item.one, "items": item.many, "manner": category.manners[place]}
    facts |= _facts(dimensions, branch, manner, random)
    facts |= _surroundings(facts, branch, manner, tree.head.lit, random)
    id_ = scene_id(tree.name, scene) + (f"-{turn + 1}" if turn else "")
    return Brief(id_, category.name, branch.name, dimensions, facts, scene, index, attempt)


def _scene(category: str, item: str) -> str:
    return f"{category}: {item}"


def _turn_of(id_: str) -> int:
    return int(id_.partition("-")[2] or 1) - 1


def _dimensions(
    category: ItemCategory, branch: SubCategory, manner: Manner, random: np.random.Generator
) -> tuple[str, ...]:
    """One to four of the category's dimensions that the branch has words for, in the category's order."""
    fitting = [d for d in category.dimensions if getattr(branch, DIMENSIONS[d])]
    fitting = [
        d for d in fitting if (d != "count" or manner.counts) and (d != "spatial relationship" or manner.relations)
    ]
    always = [d for d in fitting if d in category.always]
    free = [d for d in fitting if d not in always]
    most = min(MOST_DIMENSIONS, len(fitting))
    wanted = int(random.integers(max(len(always), 1), most + 1))
    chosen = {*always, *(free[i] for i in random.permutation(len(free))[: wanted - len(always)])}
    if {"count", "text"} <= chosen:
        chosen.remove("count")  # A text is written once, on one thing.
    return tuple(d for d in fitting if d in chosen)


def _facts(
    dimensions: Sequence[str], branch: SubCategory, manner: Manner, random: np.random.Generator
) -> dict[str, str | int]:
    facts: dict[str, str | int] = {"count": _one_of(manner.counts, random) if "count" in dimensions else 1}
    if "attribute" in dimensions:
        facts["attribute"] = _one_of(branch.attributes, random)
    if "colour" in dimensions:
        facts["colour"] = _one_of(branch.colours, random)
    if "interaction" in dimensions:
        several = [action for action in branch.actions if not _ONE_OWNER & set(action.split())]
        facts["action"] = _one_of(several or branch.actions if facts["count"] != 1 else branch.actions, random)
    if "spatial relationship" in dimensions:
        facts["relation"] = _one_of(manner.relations, random)
        facts["other"] = _one_of(branch.others, random)
    if "text" in dimensions:
        facts["text"] = _one_of(branch.texts, random)
    return facts


def _surroundings(
    facts: Mapping[str, str | int], branch: SubCategory, manner: Manner, lit: Sequence[str], random: np.random.Generator
) -> dict[str, str]:
    """Where it is, and some facts of the whole picture, none of which goes against what is said already."""
    found: dict[str, str] = {}
    said = _words_of(facts.get("action", ""), facts.get("attribute", ""))
    if branch.settings:
        # What is carried on a tray is not on the table as well, and what glows at dusk is not there at noon.
        elsewhere = [setting for setting in branch.settings if setting.split()[0] not in said]
        fitting = [s for s in elsewhere if not (_is_lit(said, lit) and _is_lit(_words_of(s), lit))]
        found["setting"] = _one_of(fitting or elsewhere or branch.settings, random)
        said += _words_of(found["setting"])
    frame = [name for name in manner.frame if name not in said and not (name == "light" and _is_lit(said, lit))]
    wanted = int(random.integers(FRAME_FACTS[0], FRAME_FACTS[1] + 1))
    for i in random.permutation(len(frame))[:wanted]:
        found[frame[i]] = _one_of(manner.frame[frame[i]], random)
    return found


def _words_of(*phrases: str | int) -> list[str]:
    return [word for phrase in phrases for word in re.split(r"[ -]", str(phrase))]


def _is_lit(words: Sequence[str], lit: Sequence[str]) -> bool:
    return any(word.startswith(tuple(lit)) for word in words) if lit else False


def _one_of(values: Sequence[Word], random: np.random.Generator) -> Word:
    return values[int(random.integers(len(values)))]
