"""What tokens cost: a dated list of models, and dollars of what a request used."""

import re
from datetime import date
from functools import cache
from pathlib import Path

from lens_core.recipes import RecipeProblem, Strict, load_recipe
from lens_rl.judges.backend import Usage
from lens_rl.recipe import Price

PRICES = Path(__file__).parent / "prices.yaml"

_MILLION = 1_000_000
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class ListedPrice(Price):
    """A price with its date and where it stands."""

    as_of: date
    source: str


class PriceList(Strict):
    models: dict[str, ListedPrice]


@cache
def listed(path: Path = PRICES) -> dict[str, ListedPrice]:
    """The list by model name. Raises RecipeProblem that names the line."""
    return load_recipe(PriceList, path).models


def price_of(model: str | None, own: Price | None = None) -> Price | None:
    """A model's price: the recipe's own, nothing where there is no model to pay, the list's, or None: unknown.

    A dated snapshot such as `gpt-4.1-mini-2025-04-14` costs what its model costs.
    """
    if own is not None:
        return own
    if model is None:
        return Price(input=0.0, output=0.0)
    return listed().get(model) or listed().get(_SNAPSHOT.sub("", model))


def cost_of(usage: Usage, price: Price) -> float:
    """US dollars of what was reported."""
    cached = price.input if price.cached is None else price.cached
    cache_write = price.input if price.cache_write is None else price.cache_write
    dollars = (
        usage.input_tokens * price.input
        + usage.cached_tokens * cached
        + usage.cache_write_tokens * cache_write
        + usage.output_tokens * price.output
    )
    return dollars / _MILLION


def worst_cost_of(usage: Usage, price: Price) -> float:
    """US dollars where nobody knows yet what a cache will hold: all input at its dearest."""
    return _with_input_at(max(_input_prices(price)), usage, price)


def least_cost_of(usage: Usage, price: Price) -> float:
    """US dollars if a cache held all input."""
    return _with_input_at(min(_input_prices(price)), usage, price)


def _input_prices(price: Price) -> list[float]:
    return [each for each in (price.input, price.cached, price.cache_write) if each is not None]


def _with_input_at(dollars: float, usage: Usage, price: Price) -> float:
    tokens = usage.input_tokens + usage.cached_tokens + usage.cache_write_tokens
    return (tokens * dollars + usage.output_tokens * price.output) / _MILLION


def refuse_unpriced(model: str | None, own: Price | None, budget_usd: float | None, *, where: str = "judge") -> None:
    """Refuse a budget that cannot be kept, because nobody knows what the model costs. `where` has the fields."""
    if budget_usd is not None and price_of(model, own) is None:
        raise RecipeProblem(
            f"{where}.budget_usd is {budget_usd}, but the price of {model!r} is unknown: give {where}.price.input and "
            f"{where}.price.output, in US dollars per million tokens"
        )
