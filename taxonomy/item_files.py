"""The YAML files of an item tree: a head, and a file for each category."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lens_core.recipes import Strict
from taxonomy.english import NUMBERS, plural

DIMENSIONS = {
    "attribute": "attributes",
    "colour": "colours",
    "count": "items",
    "interaction": "actions",
    "spatial relationship": "others",
    "text": "texts",
}
"""What a prompt can describe of its item, and the list of a sub-category that it is drawn from."""

Words = tuple[str, ...]


class Item(Strict):
    """A thing in singular and plural, without an article. In YAML a plain word stands for its regular plural."""

    one: str
    many: str


def _item(value: Any) -> Any:
    return {"one": value, "many": plural(value)} if isinstance(value, str) and value.strip() else value


class SubCategory(Strict):
    """A branch: its items, and the words that fit each of them. A dimension with an empty list is not drawn here."""

    name: str
    items: Annotated[tuple[Annotated[Item, BeforeValidator(_item)], ...], Field(min_length=1)]
    attributes: Words = ()
    """Stand before an item: `muddy`."""
    colours: Words = ()
    actions: Words = ()
    """Follow an item: `chewing a mouthful of hay`."""
    settings: Words = ()
    """Where it is: `in a farmyard after rain`."""
    others: Words = ()
    """Things, with their article, that it can stand to in some relation."""
    texts: Words = ()
    """Strings to be written on it, letter for letter."""


class CategoryFile(Strict):
    """The fields of a category's own YAML file."""

    name: str
    dimensions: Annotated[Words, Field(min_length=1)]
    sub_categories: Annotated[tuple[SubCategory, ...], Field(min_length=1, alias="sub-categories")]


class Manner(Strict):
    """How pictures of one sort of thing are asked for: what the sampler draws besides the words of the item."""

    counts: tuple[Annotated[int, Field(ge=2, lt=len(NUMBERS))], ...] = ()
    relations: Words = ()
    frame: dict[str, Annotated[Words, Field(min_length=1)]] = Field(default_factory=dict)
    """Facts of the whole picture by their name, such as light and view; each prompt states some of them."""


class Place(Strict):
    """One category as the head lists it."""

    file: str
    """The category's file, seen from the head."""
    quota: Annotated[float, Field(gt=0.0, le=1.0)]
    manner: str
    manners: dict[str, str] = Field(default_factory=dict)
    """Sub-categories that are asked for in another manner."""
    always: Words = ()
    """Dimensions that every prompt of the category describes."""


class Head(Strict):
    """The fields of an item tree's own YAML file."""

    name: str
    size: Annotated[int, Field(ge=1)]
    """Prompts of a whole set: at most one an item."""
    grammar: str
    """Name of the offline writer's grammar in `taxonomy/grammars/`, or a path seen from the head."""
    lit: Words = ()
    """Words that speak of light: where a setting or an action has one, no other light is asked for."""
    manners: Annotated[dict[str, Manner], Field(min_length=1)]
    categories: Annotated[tuple[Place, ...], Field(min_length=1)]
