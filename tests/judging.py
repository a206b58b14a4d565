"""Judging a few pictures against a fault server: what tests share, and a process of its own to kill.

python -m tests.judging STORE URL IMAGES '{"concurrency": 4}'
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lens_core.records import Criterion, Prompt, Verdict
from lens_rl.judges import open_backend, open_judge
from lens_rl.judges.backend import Question
from lens_rl.judges.store import VerdictStore, image_sha, question_sha
from lens_rl.recipe import Judge, Price
from rubrics.rubric import Rubric
from tests.fault_server import questions_of

CRITERIA = 10
KINDS = ("colour", "shape", "count")
PROMPT = Prompt(
    "p",
    "a circle",
    criteria=tuple(Criterion(f"c{n}", f"Statement {n} holds.", KINDS[n % 3]) for n in range(CRITERIA)),
)
PRICE = Price(input=10.0, output=40.0)
RUBRIC = Rubric.load("lens")


def section(url: str, **changes: Any) -> Judge:
    settings: dict[str, Any] = {"profile": "generic", "probabilities": False, "price": PRICE} | changes
    return Judge(base_url=url, model="m", **settings)


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


def judge_all(
    judge: Judge, store: Path, images: Sequence[np.ndarray], prompt: Prompt = PROMPT, *, step: int | None = None
) -> list[tuple[Verdict, ...]]:
    """All verdicts, by a judge that is opened for them and closed again."""
    asked = open_judge(judge, open_backend(judge), RUBRIC, store)
    asked.step = step
    try:
        return asked.collect([(prompt, asked.submit(prompt, image)) for image in images], "the test")
    finally:
        asked.close()


def server_keys(judge: Judge, images: Sequence[np.ndarray], prompt: Prompt = PROMPT) -> dict[tuple[str, str], str]:
    """What the fault server knows a question by, for what the store knows it by; one criterion a request."""
    backend = open_backend(judge)
    questions = [Question(criterion, *RUBRIC.messages(prompt.text, criterion)) for criterion in prompt.criteria]
    keys = {}
    for image in images:
        picture = backend.prepare(image)
        for question in questions:
            (keys[image_sha(image), question_sha(question)],) = questions_of(
                dict(backend.request(picture, [question]) or {})
            ).values()
    return keys


def stored(path: Path) -> set[tuple[str, str]]:
    """Keys of the verdicts in a store."""
    store = VerdictStore.read(path)
    try:
        return {(image, question) for image, question in store.rows(
            "SELECT image_sha, question_sha FROM verdicts WHERE status='ok'"
        )}  # fmt: skip
    finally:
        store.close()


def ledger(path: Path) -> dict[str, float]:
    """Sums over all requests of a store, and how many were lost."""
    names = ("rows", "tries", "tokens", "unreported", "cost", "lost")
    store = VerdictStore.read(path)
    try:
        (row,) = store.rows(
            "SELECT count(*), total(tries), total(input_tokens + cached_tokens + cache_write_tokens + output_tokens), "
            "total(unreported), total(cost), total(status IN ('lost', 'open')) FROM requests"
        )
    finally:
        store.close()
    return dict(zip(names, row, strict=True))


def main(store: str, url: str, images: str, changes: str) -> None:
    print("judging", flush=True)
    judge_all(section(url, **json.loads(changes)), Path(store), pictures(int(images)))


if __name__ == "__main__":
    main(*sys.argv[1:])
