"""Asking a judge whether a criterion holds on an image, and keeping what it said."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lens_core.doors import PREFIX, own_class
from lens_core.recipes import RecipeProblem, nearest
from lens_rl.judges.backend import Backend
from lens_rl.judges.judge import RubricJudge
from lens_rl.judges.store import VerdictStore

if TYPE_CHECKING:
    from lens_rl.recipe import Judge
    from rubrics.rubric import Rubric


def _shapes(_: "Judge") -> Backend:
    from lens_rl.judges.shapes import ShapesBackend

    return ShapesBackend()


def _openai_chat(judge: "Judge") -> Backend:
    from lens_rl.judges.openai_chat import OpenAIChatBackend

    return OpenAIChatBackend(
        model=judge.model,
        base_url=judge.base_url,
        api_key_env=judge.api_key_env,
        timeout=judge.timeout_seconds,
        longest_side=judge.longest_side,
    )


def _replay(judge: "Judge") -> Backend:
    from lens_rl.judges.replay import ReplayBackend

    return ReplayBackend(judge.answers_from, judge.model)


BACKENDS: dict[str, Callable[["Judge"], Backend]] = {
    "shapes": _shapes,
    "openai_chat": _openai_chat,
    "replay": _replay,
}


def open_backend(judge: "Judge") -> Backend:
    """The backend that a recipe's `judge` section chooses. Raises RecipeProblem or JudgeProblem."""
    if judge.backend.startswith(PREFIX):
        return own_class(judge.backend, field="judge.backend")(judge)
    if judge.backend not in BACKENDS:
        raise RecipeProblem(
            f"judge.backend: unknown backend {judge.backend!r}{nearest(judge.backend, BACKENDS)}; "
            f"there are: {', '.join(BACKENDS)}, or `python: path/to/file.py:Class`"
        )
    return BACKENDS[judge.backend](judge)


def open_judge(judge: "Judge", backend: Backend, rubric: "Rubric", store: Path) -> RubricJudge:
    """A recipe's judge over a verdict store. Raises RecipeProblem or RunProblem with the field or file to change."""
    return RubricJudge(
        backend,
        rubric,
        VerdictStore(store),
        concurrency=judge.concurrency,
        max_error_share=judge.max_error_share,
        budget_usd=judge.budget_usd,
        price=judge.price,
    )
