"""What stands between the rubric judge and whoever answers: one picture and some questions in, answers out.

A backend makes one request. It renders no template, keeps nothing, knows no price and does not try again where an
answer came but cannot be used; `RubricJudge` does all of that for every backend. Only faults of the transport are
retried here, by the client that meets them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np

from lens_core.records import Criterion
from lens_core.runs import RunProblem

Status = Literal["ok", "refusal", "invalid", "timeout", "error"]
"""How an answer ended. The judge asks again after "refusal" and "invalid", where a reply came that cannot be used (no
label, broken JSON, wrong names, an error object behind HTTP 200). "timeout" and "error" are what the transport's own
retries left; they are not asked again before the run is started again, so that retries never multiply.
"""


class JudgeProblem(RunProblem):
    """The judge cannot be used at all: says which recipe field to change. Never a verdict."""


@dataclass(frozen=True, slots=True)
class Question:
    """One criterion, with the texts to send to a language model."""

    criterion: Criterion
    system: str
    user: str


@dataclass(frozen=True, slots=True)
class Answer:
    """1, 0 or None; None exactly when `status` is not "ok". Fields as in `lens_core.records.Verdict`."""

    value: int | None
    status: Status = "ok"
    p: float | None = None
    mass: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was sent and counted: HTTP requests, tries that failed included, and tokens by what they are priced at.

    `input_tokens` are those that no cache held; a request's prompt is the sum of the three inputs. `unreported` are
    those of the requests that may be charged although no reply told what they took: stalled past the deadline, cut
    off, or answered with a body that cannot be read. The ledger charges each at its worst case. `throttled` are those
    told 429: the judge sends fewer at once for a while.
    """

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    unreported: int = 0
    throttled: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Usage)))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.cached_tokens + self.cache_write_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer a question, in their order, and what the request took."""

    answers: tuple[Answer, ...]
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a configured backend can do. The judge and the checks of a recipe ask here, and never a model's name."""

    questions_per_request: int = 1
    """How many criteria of one picture a request may carry."""
    probabilities: bool = False
    """Answers have `p`."""
    label_mass: bool = False
    """Answers have `mass`."""
    structured_output: bool = False
    reasoning_effort: bool = False
    longest_side: int | None = None
    """Pixels; larger pictures are made smaller before they are sent. None: sent as they are."""


class Backend(Protocol):
    """One way to ask. Built by `lens_rl.judges.open_backend` from the recipe's `judge` section.

    Judges of your own inherit from it and write `identity` and `answer`; the rest has defaults.
    """

    identity: str
    """Model and everything else, apart from the templates, that an answer depends on."""
    model: str | None = None
    """The name its price is found under; None where answers cost nothing."""
    capabilities: Capabilities = Capabilities(questions_per_request=400)

    def cannot_read(self, criterion: Criterion) -> str | None:
        """Why this backend could never answer that criterion, or None."""
        return None

    def prepare(self, image: np.ndarray) -> Any:
        """An image, uint8 RGB (height, width, 3), as `answer` takes it: encoded once for all its requests."""
        return image

    async def answer(self, picture: Any, questions: Sequence[Question]) -> Reply:
        """One request: at most `capabilities.questions_per_request` questions about a prepared picture.

        A question that could not be answered is an `Answer` with its status; JudgeProblem is for
        what no later question will survive either, such as a rejected key.
        """
        ...

    async def check(self, picture: Any, question: Question) -> Usage:
        """One question asked before a run, where that finds out more than the constructor did; no answer is kept.

        Raises JudgeProblem, with the recipe's field and the remedy, where the endpoint, its model or
        what the capabilities promise is not there.
        """
        return Usage()

    def request(self, picture: Any, questions: Sequence[Question]) -> Mapping[str, Any] | None:
        """The body that `answer` sends for them, as JSON holds it, for people to see; None where nothing is sent."""
        return None

    def worst_case(self, picture: Any, questions: Sequence[Question]) -> Usage:
        """The most that request can take, all its tries together: what a budget must have left before it is sent.

        `requests` is the number of tries; the tokens are those of a single try times that.
        """
        return Usage()

    async def close(self) -> None:
        """Let go of connections."""
