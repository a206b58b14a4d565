"""Category trees in YAML: what can be asked for, in which shares, and how it is said.

A category has slots, each filled from a word list. The filled slots are the facts of a prompt: its
text is a Jinja template over them, and so are the criteria that a rubric writes later.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from lens_core.recipes import RecipeProblem, Strict, find_recipe, load_recipe, nearest
from lens_core.templates import Condition, Template
from taxonomy.items import ItemTree, load_item_tree, names_a_grammar

TREES = Path(__file__).parent / "trees"

Fact = str | int
Facts = Mapping[str, Fact]
Words = Annotated[tuple[Fact, ...], Field(min_length=1)]


class Category(Strict):
    """One kind of prompt. `slots` fills each fact from a named list or a list given in place."""

    name: str
    quota: Annotated[float, Field(gt=0.0, le=1.0)]
    """Share of this category in a prompt set; the quotas of a tree add up to 1."""
    dimensions: tuple[str, ...]
    slots: Annotated[dict[str, str | Words], Field(min_length=1)]
    text: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ways to say the same facts."""
    scene: str
    """What the picture shows, however it is said: prompts with equal scenes stay in one split."""
    where: str | None = None
    """Condition that the facts must meet."""


class Tree(Strict):
    """A taxonomy: word lists, the words and phrases that texts are made of, and categories."""

    name: str
    lists: dict[str, Words] = Field(default_factory=dict)
    words: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Named tables for templates, such as number words. Keys are text; facts look up by their text."""
    phrases: dict[str, str] = Field(default_factory=dict)
    """Named templates over the facts of a category, for its texts and scene."""
    categories: Annotated[tuple[Category, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def makes_sense(self) -> "Tree":
        total = sum(category.quota for category in self.categories)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the quotas of the categories add up to {total:g}, not to 1")
        names = [category.name for category in self.categories]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two categories are named {doubled!r}")
        for name, values in self.lists.items():
            _refuse_doubled(values, f"list {name!r}")
        for category in self.categories:
            self._check_slots(category)
        self._check_phrases()
        _ = self.templates
        return self

    def _check_slots(self, category: Category) -> None:
        for slot, source in category.slots.items():
            place = f"category {category.name!r}: slot {slot!r}"
            if not slot.isidentifier():
                raise ValueError(f"{place} is no name that a template can use: write letters, digits and _")
            if slot in self.words or slot in self.phrases:
                raise ValueError(f"{place} has the name of a table of words or of a phrase: rename one of them")
            if not isinstance(source, str):
                _refuse_doubled(source, place)
            elif source not in self.lists:
                raise ValueError(f"{place} names no list {source!r}{nearest(source, self.lists)}")

    def _check_phrases(self) -> None:
        slots = {slot for category in self.categories for slot in category.slots}
        for name, source in self.phrases.items():
            phrase = Template(source, where=f"tree {self.name}, phrase {name!r}")
            if unknown := sorted(phrase.asks_for - slots - set(self.words)):
                raise ValueError(f"phrase {name!r} asks for {', '.join(unknown)}, which is a slot of no category")

    @cached_property
    def templates(self) -> dict[str, "CategoryTemplates"]:
        """The compiled templates of each category, by its name."""
        return {category.name: CategoryTemplates(self, category) for category in self.categories}

    def values(self, category: Category, slot: str) -> tuple[Fact, ...]:
        """What a slot can be filled with."""
        source = category.slots[slot]
        return self.lists[source] if isinstance(source, str) else source


class CategoryTemplates:
    """Facts of one category to texts, scene, and whether they may be asked for at all."""

    def __init__(self, tree: Tree, category: Category):
        where = f"tree {tree.name}, category {category.name!r}"
        slots = set(category.slots)
        self._words = {name: _Words(table) for name, table in tree.words.items()}
        phrases = {name: Template(source, where=f"{where}, phrase {name!r}") for name, source in tree.phrases.items()}
        # A phrase about slots that this category lacks is simply not offered to its texts.
        known = slots | set(self._words)
        self._phrases = {name: phrase for name, phrase in phrases.items() if phrase.asks_for <= known}
        offered = known | set(self._phrases)
        self._texts = [Template(text, where=f"{where}, text", variables=offered) for text in category.text]
        self._scene = Template(category.scene, where=f"{where}, scene", variables=offered)
        self._allowed: Condition | None = None
        if category.where:
            # A condition does not tell which variables it asks for; the template of the same expression does.
            Template(f"{{{{ {category.where} }}}}", where=f"{where}, where", variables=slots)
            self._allowed = Condition(category.where, where=f"{where}, where")

    def allows(self, facts: Facts) -> bool:
        return self._allowed is None or self._allowed(**facts)

    def texts(self, facts: Facts) -> list[str]:
        """Every way to say the facts, in the order of the tree."""
        values = self._values(facts)
        return [template.render(**values) for template in self._texts]

    def scene(self, facts: Facts) -> str:
        return self._scene.render(**self._values(facts))

    def _values(self, facts: Facts) -> dict[str, object]:
        values: dict[str, object] = {**self._words, **facts}
        return values | {name: phrase.render(**values) for name, phrase in self._phrases.items()}


def _refuse_doubled(values: tuple[Fact, ...], place: str) -> None:
    if doubled := next((value for value in values if values.count(value) > 1), None):
        raise ValueError(f"{place} has {doubled!r} twice")


class _Words(dict[str, str]):
    """A table that takes a number for its text: YAML and JSON disagree about keys."""

    def __getitem__(self, key: Fact) -> str:
        return super().__getitem__(str(key))


def load_any_tree(name: str) -> Tree | ItemTree:
    """A tree by name (one of `taxonomy/trees/`) or by path. Raises RecipeProblem or TemplateProblem."""
    path = find_recipe(name, TREES, what="tree")
    return load_item_tree(path) if names_a_grammar(path) else load_recipe(Tree, path)


def load_tree(name: str) -> Tree:
    """The same for a tree of slots, which says its prompts itself; an item tree is a RecipeProblem."""
    tree = load_any_tree(name)
    if isinstance(tree, ItemTree):
        raise RecipeProblem(
            f"tree {name!r} names things that a writer puts into words: build a set of it with "
            f"`lens-rl prompts build --tree {name} --out FILE`, and give that file as prompts.set"
        )
    return tree
