"""Item trees: categories of concrete things, each in a file of its own, under a head that says how much of each.

A tree of slots (`taxonomy/tree.py`) says all of a small world; an item tree names thousands of things of a large
one. A prompt is about one item, and a writer puts into words what was drawn for it.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lens_core.recipes import RecipeProblem, load_recipe, nearest
from taxonomy.item_checks import check_tree
from taxonomy.item_files import CategoryFile, Head, Place, SubCategory, Words


@dataclass(frozen=True)
class ItemCategory:
    """A category with its share and its branches."""

    name: str
    quota: float
    dimensions: Words
    always: Words
    branches: tuple[SubCategory, ...]
    manners: tuple[str, ...]
    """The manner of each branch."""

    @property
    def size(self) -> int:
        return sum(len(branch.items) for branch in self.branches)


@dataclass(frozen=True)
class ItemTree:
    """A loaded item tree. `hash` covers every word of it."""

    head: Head
    path: Path
    categories: tuple[ItemCategory, ...]

    @property
    def name(self) -> str:
        return self.head.name

    @property
    def size(self) -> int:
        return self.head.size

    @cached_property
    def hash(self) -> str:
        """sha256 of all that prompts are drawn from."""
        parts = [self.head.model_dump_json()] + [b.model_dump_json() for c in self.categories for b in c.branches]
        parts += [repr((c.name, c.dimensions)) for c in self.categories]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def load_item_tree(path: Path) -> ItemTree:
    """Read the head at `path` and the category files it names.

    Raises RecipeProblem, with file, line and nearest name, for a field or word that cannot be used, a doubled
    item, an empty branch, and a quota over the items of its category.
    """
    head = load_recipe(Head, path)
    files = [path.parent / place.file for place in head.categories]
    read = [load_recipe(CategoryFile, file) for file in files]
    check_tree(head, path, files, read)
    categories = tuple(
        _joined(head, place, category, path) for place, category in zip(head.categories, read, strict=True)
    )
    tree = ItemTree(head, path, categories)
    check_quotas(tree, tree.size)
    return tree


def names_a_grammar(path: Path) -> bool:
    """Is this file an item tree? Such a tree names the grammar that puts it into words."""
    try:
        return re.search(r"^grammar:", path.read_text(encoding="utf-8"), re.M) is not None
    except (OSError, UnicodeDecodeError):
        return False  # The loader of recipes says what is wrong with it.


def check_quotas(tree: ItemTree, n: int) -> None:
    """Raises RecipeProblem where `n` prompts ask for more items than a category has: each item is asked for once."""
    for category in tree.categories:
        if category.quota * n > category.size:
            raise RecipeProblem(
                f"{tree.path}: category {category.name!r} has {category.size} items, but {n} prompts at a quota of "
                f"{category.quota:g} ask for {category.quota * n:.0f}: lower its quota or their number, or add items"
            )


def _joined(head: Head, place: Place, category: CategoryFile, path: Path) -> ItemCategory:
    where = f"{path}: category {category.name!r}"
    names = [branch.name for branch in category.sub_categories]
    for name in place.manners:
        if name not in names:
            raise RecipeProblem(f"{where}: manners names no sub-category {name!r}{nearest(name, names)}")
    manners = tuple(place.manners.get(name, place.manner) for name in names)
    for manner in manners:
        if manner not in head.manners:
            raise RecipeProblem(f"{where}: there is no manner {manner!r}{nearest(manner, head.manners)}")
    for dimension in place.always:
        if dimension not in category.dimensions:
            raise RecipeProblem(
                f"{where}: always asks for {dimension!r}, which is no dimension of it"
                f"{nearest(dimension, category.dimensions)}"
            )
    return ItemCategory(category.name, place.quota, category.dimensions, place.always, category.sub_categories, manners)
