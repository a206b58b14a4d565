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

    return OpenAIChatBackend(judge)


def _replay(judge: "Judge") -> Backend:
    from lens_rl.judges.replay import ReplayBackend

    return ReplayBackend(judge.answers_from, judge.model)


def _openai_decisions(judge: "Judge") -> Backend:
    from lens_rl.judges.openai_decisions import OpenAIDecisionsBackend

    return OpenAIDecisionsBackend(judge)


def _transformers(judge: "Judge") -> Backend:
    from lens_rl.judges.transformers_vlm import TransformersBackend

    return TransformersBackend(judge)


def _vllm(judge: "Judge") -> Backend:
    from lens_rl.judges.vllm_engine import VllmBackend

    return VllmBackend(judge)


BACKENDS: dict[str, Callable[["Judge"], Backend]] = {
    "shapes": _shapes,
    "openai_chat": _openai_chat,
    "replay": _replay,
    "openai_decisions": _openai_decisions,
    "vllm": _vllm,
    "transformers": _transformers,
}


def open_backend(judge: "Judge") -> Backend:
    """The backend that a recipe's `judge` section chooses.

    Raises RecipeProblem or JudgeProblem for an unknown one, and for anything asked of it that it
    does not have.
    """
    if judge.backend.startswith(PREFIX):
        backend = own_class(judge.backend, field="judge.backend")(judge)
    elif judge.backend in BACKENDS:
        backend = BACKENDS[judge.backend](judge)
    else:
        raise RecipeProblem(
            f"judge.backend: unknown backend {judge.backend!r}{nearest(judge.backend, BACKENDS)}; "
            f"there are: {', '.join(BACKENDS)}, or `python: path/to/file.py:Class`"
        )
    refuse_unable(judge, backend)
    return backend


def refuse_unable(judge: "Judge", backend: Backend) -> None:
    """Refuse what the recipe asks for and the configured backend lacks."""
    can = backend.capabilities
    if judge.request == "per_image" and can.questions_per_request == 1:
        raise RecipeProblem(
            f"judge.request: {judge.backend} takes one criterion a request here, for want of structured output; "
            "use per_criterion, or a profile that has it"
        )
    if judge.probabilities and not can.probabilities:
        raise RecipeProblem(
            f"judge.probabilities: {judge.backend} has none as it is set up here; on chat completions they need "
            "judge.request=per_criterion, no reasoning effort, and a profile with label_probabilities; "
            "openai_decisions has them always"
        )
    if judge.reasoning_effort and not can.reasoning_effort:
        raise RecipeProblem(f"judge.reasoning_effort: {judge.backend} has none; leave it out")


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
