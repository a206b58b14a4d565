"""A prompt set from an item tree: briefs are drawn, written, checked, and drawn again where a text cannot be used."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from lens_core.recipes import RecipeProblem
from taxonomy.briefs import Brief, redraw
from taxonomy.english import indefinite
from taxonomy.faithful import unstated
from taxonomy.items import ItemTree
from taxonomy.near_duplicates import Leakage, NearDuplicates
from taxonomy.sampler import Draw

ATTEMPTS = 20
"""Draws of other facts for one item before a set is given up."""


class Writer(Protocol):
    """Puts briefs into words."""

    name: str
    """What a text depends on besides its brief, for manifests."""
    batch: int
    """How many briefs it takes at once."""

    def write(self, briefs: Sequence[Brief]) -> list[str]:
        """A text for each brief, with every dimension's exact words. Raises ValueErrors that say what to change."""
        ...


@dataclass(frozen=True, slots=True)
class Built:
    """The prompts of a set in their order, and how many texts were refused on the way, by reason."""

    draws: tuple[Draw, ...]
    refused: Counter[str]


def build(
    tree: ItemTree,
    writer: Writer,
    briefs: Iterable[Brief],
    seed: int,
    *,
    benchmarks: Iterable[str] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Built:
    """Write the briefs; each text states its dimensions, and none is near another or holds a benchmark prompt.

    Raises RecipeProblem where a writer leaves a dimension out, or an item has no text that can be used.
    """
    gate = _Gate(Leakage(benchmarks))
    draws: list[Draw] = []
    for batch in _batches(briefs, writer.batch):
        draws += _written(tree, writer, batch, seed, gate)
        progress(len(draws))
    return Built(tuple(draws), gate.refused)


class _Gate:
    """Lets a text in, or says why not."""

    def __init__(self, leakage: Leakage):
        self._leakage, self._near = leakage, NearDuplicates()
        self.refused: Counter[str] = Counter()

    def passes(self, brief: Brief, text: str) -> bool:
        if self._leakage.leaked(text) is not None:
            self.refused["benchmark"] += 1
            return False
        if self._near.nearest(text) is not None:
            self.refused["near-duplicate"] += 1
            return False
        self._near.add(brief.id, text)
        return True


def _written(tree: ItemTree, writer: Writer, batch: Sequence[Brief], seed: int, gate: _Gate) -> list[Draw]:
    found: dict[int, Draw] = {}
    pending = list(batch)
    for _ in range(ATTEMPTS):
        again = []
        for brief, text in zip(pending, writer.write(pending), strict=True):
            if lacks := unstated(text, brief):
                raise RecipeProblem(f"{writer.name} left out {lacks} of item {brief.facts['item']!r} in {text!r}")
            if gate.passes(brief, text):
                found[brief.index] = _draw(brief, text)
            else:
                again.append(redraw(tree, brief, seed))
        pending = again
        if not pending:
            return [found[brief.index] for brief in batch]
    raise RecipeProblem(
        f"tree {tree.name}: {ATTEMPTS} texts on {pending[0].facts['item']!r} were near other prompts, or held a "
        "benchmark prompt: give its sub-category more words, or the grammar more ways to say them"
    )


def _draw(brief: Brief, text: str) -> Draw:
    """The facts gain what rubrics need beside them: `thing`, the item in its number, `subject`, the same with its
    article, and `sub_category`."""
    item, items = str(brief.facts["item"]), str(brief.facts["items"])
    thing, subject = (item, indefinite(item)) if brief.facts["count"] == 1 else (items, items)
    facts = {"sub_category": brief.sub_category, "thing": thing, "subject": subject, **brief.facts}
    return Draw(brief.id, text, brief.category, brief.dimensions, facts, brief.scene)


def _batches(briefs: Iterable[Brief], size: int) -> Iterator[list[Brief]]:
    stream = iter(briefs)
    while batch := list(islice(stream, size)):
        yield batch
