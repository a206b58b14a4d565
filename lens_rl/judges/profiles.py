"""What is known of a model, as data: how it is asked, what it can tell, how it counts pictures, when it ends.

A backend's request is built from its profile and from nothing else: no model is named in Python.
"""

from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lens_core.recipes import RecipeProblem, Strict, find_recipe, load_recipe, nearest
from lens_rl.recipe import Count, Endpoint, Judge, Side

PROFILES = Path(__file__).parent / "profiles"
UNKNOWN = "generic"


class Pictures(Strict):
    """How a picture is sent."""

    format: Literal["jpeg", "webp"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    longest_side: Side
    """Pixels; larger pictures are made smaller, and no recipe may ask for more."""
    detail: Literal["auto", "low", "high", "original"] | None = None
    """Sent with the picture, to endpoints that know it."""
    most_tokens: Count
    """More than one such picture is ever counted as: what a budget holds back for it."""


class Shutdown(Strict):
    """The day its vendor switches a model off."""

    date: date
    successor: str
    source: str


class Profile(Strict):
    """The fields of a profile's YAML file."""

    models: tuple[str, ...] = ()
    """Names that this profile is found by; the first is asked where a recipe names none."""
    backends: tuple[str, ...]
    """Backends that the model can be reached by."""
    request: Literal["per_criterion", "per_image"]
    """The request shape where the recipe chooses none."""
    label_probabilities: Literal["token_ids", "top_logprobs"] | None = None
    """How the probabilities of "1" and "0" are read: exactly, by the ids of the two tokens (vLLM, in process), or from
    the twenty likeliest tokens, where the mass of the two is a lower bound."""
    structured_output: bool = False
    """Replies can be bound to a JSON schema, which `per_image` needs on chat completions."""
    temperature: Annotated[float, Field(ge=0.0)] | None = None
    """Sent where the model takes one."""
    reasoning_efforts: tuple[str, ...] = ()
    """What the model accepts; the first is its default here. Temperature and probabilities are asked at `none` only."""
    reasoning_tokens: Count = 4096
    """Room for thinking, at efforts other than `none`."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the limit of a reply."""
    answer_tokens: Count = 4
    """Room for a single digit where its probability is not read; some endpoints refuse very small limits."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, as the server documents them."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `vllm.LLM`, for the backend `vllm`: its share of the GPU, how many of them."""
    image: Pictures
    shutdown: Shutdown | None = None


@cache
def load_profile(name: str) -> Profile:
    """A profile by name or path. Raises RecipeProblem with the nearest name."""
    return load_recipe(Profile, find_recipe(name, PROFILES, what="profile"))


def profile_name(endpoint: Endpoint) -> str:
    """The profile that a recipe names, else the one that lists its model, else `generic`."""
    if endpoint.profile is not None:
        return endpoint.profile
    shipped = sorted(file.stem for file in PROFILES.glob("*.yaml"))
    return next((name for name in shipped if endpoint.model in load_profile(name).models), UNKNOWN)


def model_name(endpoint: Endpoint, where: str = "judge") -> str:
    """The model to ask for. Raises RecipeProblem where neither the recipe nor the profile names one."""
    listed = load_profile(profile_name(endpoint)).models
    if not endpoint.model and not listed:
        raise RecipeProblem(f"{where}.model is missing: name the model that the endpoint serves")
    return endpoint.model or listed[0]


def effort_of(endpoint: Endpoint, where: str = "judge") -> str | None:
    """The reasoning effort to send. Raises RecipeProblem for one that the model does not take."""
    allowed = load_profile(profile_name(endpoint)).reasoning_efforts
    asked = endpoint.reasoning_effort
    if asked is None:
        return allowed[0] if allowed else None
    if asked not in allowed:
        takes = f"takes {', '.join(allowed)}{nearest(asked, allowed)}" if allowed else "takes none: leave it out"
        raise RecipeProblem(f"{where}.reasoning_effort: {asked!r}: profile {profile_name(endpoint)} {takes}")
    return asked


def profile_of(judge: Judge) -> Profile:
    """The profile of a recipe's judge.

    Raises RecipeProblem where its model cannot be reached by the backend, or takes no pictures of the size asked for.
    """
    name = profile_name(judge)
    profile = load_profile(name)
    if judge.backend not in profile.backends:
        raise RecipeProblem(
            f"judge.backend: profile {name} cannot be reached by {judge.backend!r}, but by "
            f"{' and '.join(profile.backends)}; choose one of these, or another judge.model or judge.profile"
        )
    if judge.longest_side and judge.longest_side > profile.image.longest_side:
        raise RecipeProblem(
            f"judge.longest_side: {judge.longest_side} pixels are over the limit of profile {name}, "
            f"{profile.image.longest_side}; ask for that or less, or write a profile of your own"
        )
    return profile


def warnings(judge: Judge, today: date) -> list[str]:
    """What a user should hear before a run that may start: that its model's days are counted."""
    profile = load_profile(profile_name(judge))
    end = profile.shutdown
    if end is None or judge.backend not in profile.backends:
        return []
    model, day = model_name(judge), _in_words(end.date)
    if today < end.date:
        left = (end.date - today).days
        return [f"judge.model: {model} is shut down on {day}, in {left} days; its successor is {end.successor}"]
    return [f"judge.model: {model} was shut down on {day}; its successor is {end.successor}"]


def refuse_gone(judge: Judge, today: date) -> None:
    """Raise RecipeProblem for a model that its vendor's own endpoint has no more; others may serve it still."""
    end = load_profile(profile_name(judge)).shutdown
    if end is not None and judge.base_url is None and today >= end.date:
        raise RecipeProblem(
            f"judge.model: {model_name(judge)} was shut down on {_in_words(end.date)} (see {end.source}): use its "
            f"successor {end.successor}, or give the judge.base_url of an endpoint that still serves it"
        )


def _in_words(day: date) -> str:
    return f"{day.day} {day:%B %Y}"
