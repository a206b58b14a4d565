"""The objects that cross rooms: small, frozen, without behaviour.

A prompt goes out, an image comes back, a verdict says whether one criterion holds on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One yes/no statement about an image.

    `check` is the same statement in a form that a program can read, for example
    `{"kind": "count", "of": "red circle", "n": 2}`; judges that are language models ignore it.
    `weight` is its share in the reward beside the others'. `requires` names another criterion of the same
    prompt: where that one fails, this one fails too; see `lens_rl.rewards.settled`.
    """

    name: str
    text: str
    kind: str
    check: Mapping[str, Any] | None = None
    weight: float = 1.0
    requires: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text asked of the generator, with the criteria its images are judged by.

    `facts` is what the text says, by name, for rubrics whose criteria are templates over facts.
    """

    id: str
    text: str
    category: str = ""
    dimensions: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    facts: Mapping[str, str | int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One generated image with its clean latent.

    `image` is uint8 RGB, (height, width, 3); `latent` is the generator's own token layout, (N, C).
    """

    prompt_id: str
    image: np.ndarray
    latent: Any
    size: Size
    seed: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one criterion of one image.

    `value` is 1, 0, or None exactly when `status` is not "ok": a failed judge is not a zero.
    `p` is the probability of yes and `mass` the probability that both labels share, where the
    backend has them. `latency` is in seconds, `cost` in US dollars, None where the price is unknown.
    """

    criterion: str
    image_sha: str
    judge_id: str
    value: int | None
    status: str = "ok"
    p: float | None = None
    mass: float | None = None
    latency: float = field(default=0.0, compare=False)
    tokens: int = 0
    cost: float | None = 0.0
    cached: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if (self.value is None) == (self.status == "ok"):
            raise ValueError(f"verdict on {self.criterion!r}: value {self.value!r} with status {self.status!r}")
