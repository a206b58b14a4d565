"""One judge examined: what it says of some pictures, and what it says when it is probed on some of them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas

from lens_core.records import Prompt, Verdict
from lens_rl.judges.judge import RubricJudge
from lens_rl.judges.probes import OneByOne, Probe, Reversed, negated, shuffled

IN_FLIGHT = 64
"""Pictures held in memory at once."""

OpenJudge = Callable[[type[Probe] | None], RubricJudge]
"""Opens the judge, or a probe around it; whoever opens it closes it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to be judged: what it was to show, and how to get at its pixels, uint8 RGB (H, W, 3)."""

    name: str
    prompt: Prompt
    load: Callable[[], np.ndarray]


@dataclass(frozen=True, slots=True)
class Examination:
    """What a judge said, in tables with a row a verdict.

    `image` is the picture's number, `place` and `kind` the criterion's; `value` and `p` are NaN where there is none.
    """

    judge_id: str
    verdicts: pandas.DataFrame
    probes: dict[str, pandas.DataFrame]
    """`shuffled`, `negated`, `repeat`, `reversed`, `one by one`; those that the judge cannot be put to are absent."""


def examine(
    open_judge: OpenJudge,
    pictures: Sequence[Picture],
    probed: Sequence[int] = (),
    *,
    done: Callable[[int], None] = lambda _: None,
) -> Examination:
    """Ask a judge about all pictures, and put it to every probe on those with the numbers `probed`.

    `done` hears how many pictures have been answered, probes counted. Raises JudgeProblem.
    """
    count = _Counter(done)
    few = [pictures[number] for number in probed]
    texts = [picture.prompt for picture in few]

    def asked(judge: RubricJudge, prompts: Sequence[Prompt] = texts) -> pandas.DataFrame:
        other = [replace(picture, prompt=prompt) for picture, prompt in zip(few, prompts, strict=True)]
        return ask(judge, zip(probed, other, strict=True), count)

    probes: dict[str, pandas.DataFrame] = {}
    with closing(open_judge(None)) as judge:
        verdicts = ask(judge, enumerate(pictures), count)
        if few:
            probes["shuffled"] = asked(judge, shuffled(texts))
            contrary = [negated(prompt) for prompt in texts]
            if all(judge.backend.cannot_read(c) is None for prompt in contrary for c in prompt.criteria):
                probes["negated"] = asked(judge, contrary)
        many_at_once = judge.backend.capabilities.questions_per_request > 1
        judge_id = judge.judge_id
    for probe in (Probe, Reversed, OneByOne) if many_at_once else (Probe,):
        if few:
            with closing(open_judge(probe)) as judge:
                probes[probe.name] = asked(judge)
    return Examination(judge_id, verdicts, probes)


def num_answers(num_pictures: int, num_probed: int) -> int:
    """The most that `done` will hear of."""
    return num_pictures + 5 * num_probed


def ask(
    judge: RubricJudge, pictures: Iterable[tuple[int, Picture]], done: Callable[[], None] = lambda: None
) -> pandas.DataFrame:
    """Verdicts of numbered pictures, few of them in memory at a time; see `Examination` for the columns."""
    rows: list[dict[str, Any]] = []
    for number, prompt, verdicts in _judged(judge, pictures):
        done()
        for place, (criterion, verdict) in enumerate(zip(prompt.criteria, verdicts, strict=True)):
            rows.append(
                {
                    "image": number,
                    "place": place,
                    "kind": criterion.kind,
                    "value": verdict.value,
                    "p": verdict.p,
                }
            )
    columns = {"image": int, "place": int, "kind": str, "value": float, "p": float}
    return pandas.DataFrame(rows, columns=list(columns)).astype(columns)


def _judged(
    judge: RubricJudge, pictures: Iterable[tuple[int, Picture]]
) -> Iterator[tuple[int, Prompt, tuple[Verdict, ...]]]:
    waiting: deque[tuple[int, Prompt, Future[tuple[Verdict, ...]]]] = deque()
    for number, picture in pictures:
        waiting.append((number, picture.prompt, judge.submit(picture.prompt, picture.load())))
        if len(waiting) >= IN_FLIGHT:
            number, prompt, future = waiting.popleft()
            yield number, prompt, future.result()
    for number, prompt, future in waiting:
        yield number, prompt, future.result()


class _Counter:
    """Tells a listener how often it was called."""

    def __init__(self, listener: Callable[[int], None]):
        self._listener, self._count = listener, 0

    def __call__(self) -> None:
        self._count += 1
        self._listener(self._count)
