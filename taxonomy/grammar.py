"""The offline writer: briefs into English by a grammar in YAML, with no model and no key.

A grammar has, for each manner of a tree, parts (an opening, a sentence on what stands where ...) with several ways to
say each, and the orders in which parts may follow. A way to say something is a Jinja template over the facts of a
brief and over phrases made of them. Of the facts that a part can state, a way must state exactly those that the
brief has; a part without anything to state is not said. An order is taken only where its parts state every fact.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from lens_core.recipes import RecipeProblem, Strict, find_recipe, load_recipe, nearest
from lens_core.seeds import seed_of
from lens_core.templates import Template
from taxonomy.briefs import Brief
from taxonomy.english import NUMBERS, indefinite, noun_phrase, with_capital
from taxonomy.faithful import outside
from taxonomy.items import ItemTree

GRAMMARS = Path(__file__).parent / "grammars"

FACTS = ("attribute", "colour", "action", "relation", "other", "text", "setting")
"""Facts of a brief that a template may speak of, beside its manner's frame."""
PHRASES = ("subject", "thing", "alone", "all", "each", "item", "items", "number", "be", "have", "it", "its", "s")
"""What a template is given besides: see `phrases`."""
FRAME = "frame"
"""The phrase that states, one after the other, those facts of the frame that no template asks for by name."""
_IN_SUBJECT = {"attribute", "colour"}
"""Facts that the phrase `subject` states."""
_PLAIN = {"item", "items", "count", "manner"}
"""Facts that templates see as phrases."""
ATTEMPTS = 8

Says = Annotated[tuple[str, ...], Field(min_length=1)]


class Manner(Strict):
    """How things of one sort are written about."""

    orders: Annotated[tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...], Field(min_length=1)]
    """Sequences of parts; each part is one sentence."""
    parts: Annotated[dict[str, Says], Field(min_length=1)]


class GrammarFile(Strict):
    """The fields of a grammar's YAML file."""

    name: str
    manners: Annotated[dict[str, Manner], Field(min_length=1)]


class Grammar:
    """A loaded grammar for one tree: a `taxonomy.build.Writer`."""

    batch = 1

    def __init__(self, file: GrammarFile, tree: ItemTree, where: str, seed: int):
        self._seed, self._where = seed, where
        self.name = f"offline {file.name} {hashlib.sha256(file.model_dump_json().encode()).hexdigest()[:12]}"
        for manner in tree.head.manners:
            if manner not in file.manners:
                raise RecipeProblem(f"{where}: no manner {manner!r}, which the tree has{nearest(manner, file.manners)}")
        self._manners = {
            name: _Manner(manner, f"{where}, manner {name!r}", tuple(tree.head.manners[name].frame))
            for name, manner in file.manners.items()
            if name in tree.head.manners
        }

    @classmethod
    def load(cls, tree: ItemTree, seed: int) -> "Grammar":
        """The grammar that the tree names. Raises RecipeProblem or TemplateProblem."""
        name = tree.head.grammar
        path = (
            tree.path.parent / name if name.endswith((".yaml", ".yml")) else find_recipe(name, GRAMMARS, what="grammar")
        )
        return cls(load_recipe(GrammarFile, path), tree, str(path), seed)

    def write(self, briefs: Sequence[Brief]) -> list[str]:
        """A text for each brief, the same every time."""
        return [self._text(brief) for brief in briefs]

    def _text(self, brief: Brief) -> str:
        random = np.random.default_rng(seed_of(self.name, self._seed, brief.scene, brief.id, brief.attempt))
        return self._manners[str(brief.facts["manner"])].text(brief, random)


def phrases(brief: Brief) -> dict[str, str]:
    """What templates are given: `subject` with article or number, attribute and colour; `thing`, the same again;
    `be`, `have`, `it`, `its` and the verb's `s` in its number; `alone`, `thing` where there is one, and `all` and
    `each` where there are several: `both cats`, `both`."""
    facts = brief.facts
    count, several = int(facts["count"]), int(facts["count"]) > 1
    noun = str(facts["items"] if several else facts["item"])
    described = noun_phrase(_text(facts.get("attribute")), _text(facts.get("colour")), noun)
    each = "both" if count == 2 else f"all {NUMBERS[count]}"
    thing = f"the {NUMBERS[count]} {noun}" if several else f"the {noun}"
    return {
        "subject": f"{NUMBERS[count]} {described}" if several else indefinite(described),
        "thing": thing,
        **({"all": f"{each} {noun}", "each": each} if several else {"alone": thing}),
        "item": noun,
        "items": str(facts["items"]),
        "number": NUMBERS[count],
        "be": "are" if several else "is",
        "have": "have" if several else "has",
        "it": "they" if several else "it",
        "its": "their" if several else "its",
        "s": "" if several else "s",
    }


class _Manner:
    """The compiled sentences of one manner."""

    def __init__(self, source: Manner, where: str, frame: Sequence[str]):
        self._where, self._orders = where, source.orders
        self._plans: dict[frozenset[str], list[list[list[Template]]]] = {}
        self._stated = stated = {*FACTS, *frame, FRAME}
        known = stated | set(PHRASES)
        self._parts = {
            name: _Part([Template(say, where=f"{where}, part {name!r}", variables=known) for say in says], stated)
            for name, says in source.parts.items()
        }
        for order in source.orders:
            for part in order:
                if part not in self._parts:
                    raise RecipeProblem(f"{where}: orders: there is no part {part!r}{nearest(part, self._parts)}")
        named = set().union(*(part.can_state for part in self._parts.values()))
        self._framed = [name for name in frame if name not in named]

    def text(self, brief: Brief, random: np.random.Generator) -> str:
        """The first of some attempts that is as long as a prompt should be, or the one that comes nearest."""
        values = {name: value for name, value in brief.facts.items() if name not in _PLAIN}
        framed = [str(values.pop(name)) for name in self._framed if name in values]
        values |= phrases(brief) | ({FRAME: ", ".join(framed)} if framed else {})
        plans = self._plans_for(frozenset(values))
        attempts: list[str] = []
        for _ in range(ATTEMPTS):
            plan = plans[random.integers(len(plans))]
            attempts.append(" ".join(_sentence(ways[random.integers(len(ways))].render(**values)) for ways in plan))
            if outside(attempts[-1]) == 0:
                break
        return min(attempts, key=outside)

    def _plans_for(self, given: frozenset[str]) -> list[list[list[Template]]]:
        """The orders that state everything given, each as the ways to say its parts."""
        if given not in self._plans:
            due = (given & self._stated) - _IN_SUBJECT
            found = [plan for order in self._orders if (plan := self._plan(order, given, due)) is not None]
            if not found:
                raise RecipeProblem(f"{self._where}: no order states {', '.join(sorted(due))} together: add one")
            self._plans[given] = found
        return self._plans[given]

    def _plan(self, order: Sequence[str], given: frozenset[str], due: frozenset[str]) -> list[list[Template]] | None:
        plan = []
        for part in (self._parts[name] for name in order):
            ways = part.ways(given)
            if not ways and part.can_state & given:
                return None
            plan += [ways] if ways else []
            due -= part.can_state
        return None if due else plan


class _Part:
    """Ways to say one sentence."""

    def __init__(self, ways: Sequence[Template], stated: set[str]):
        self._ways = [(way, way.asks_for & stated, way.asks_for - stated) for way in ways]
        self.can_state = frozenset[str]().union(*(facts for _, facts, _ in self._ways))

    def ways(self, given: frozenset[str]) -> list[Template]:
        """Those that state all that there is to state, and nothing else."""
        due = self.can_state & given
        return [way for way, facts, phrases in self._ways if facts == due and phrases <= given]


def _sentence(said: str) -> str:
    said = said.strip()
    return with_capital(said) + ("" if said.endswith((".", "!", "?")) else ".")


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)
