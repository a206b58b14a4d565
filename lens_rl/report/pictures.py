"""Pictures inside the page: base beside trained with every verdict, and one seed through the whole run."""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lens_rl.intervals import means_P
from lens_rl.report.record import RunRecord
from lens_rl.samples import (
    FIRST_OF_TEST,
    LOSSLESS_SIDE,
    Transcript,
    extremes,
    folder_of_test,
    folder_of_validation,
    rewards_PG,
)

SHOWN_SIDE = 112
"""Pixels on the page of the longest side; small pictures are enlarged by a whole factor, so that they stay crisp."""
FRAMES = 8
"""Validations on a film strip; of more, some evenly between the first and the last are shown."""

MEDIA_TYPES = {".png": "image/png", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the page. `width` and `height` are what it is shown at, in CSS pixels."""

    source: str
    """A data URI."""
    width: int
    height: int
    crisp: bool
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Line:
    """A criterion and its verdicts, one a picture of each side."""

    text: str
    kind: str
    base: list[str]
    """"yes", "no", or "error"."""
    trained: list[str]


@dataclass(frozen=True, slots=True)
class Card:
    """One prompt before and after."""

    text: str
    base: list[Picture]
    trained: list[Picture]
    gain: float
    """Over all images of the prompt, also those not shown; NaN where none has a reward on both sides."""
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class Strip:
    """One prompt and seed, from the first validation to the last."""

    text: str
    frames: list[Picture]


def cards_of_test(run: RunRecord) -> dict[str, list[Card]]:
    """The first test prompts, and those that gained most, lost most and stand lowest, under these names."""
    base, trained = run.test("base"), run.test("trained")
    if not base or not trained:
        return {}
    base_PG, trained_PG = rewards_PG(base), rewards_PG(trained)
    found = extremes(base_PG, trained_PG)
    wanted = {
        "first": list(range(FIRST_OF_TEST)),
        "improved": found.improved,
        "worsened": found.worsened,
        "lowest": found.lowest,
    }
    cards = _cards(run, base, trained, means_P(trained_PG - base_PG))
    return {name: [cards[group] for group in groups if group in cards] for name, groups in wanted.items()}


def film_strips(run: RunRecord) -> list[Strip]:
    """The first picture of each prompt whose pictures were kept, at validations from the start to the end."""
    steps = _spread([row["step"] for row in run.validations], keep=run.best_step)
    strips: dict[int, Strip] = {}
    for step in steps:
        folder = folder_of_validation(run.path, step)
        for one in run.validation(step):
            if one.picture is not None and one.index == 0:
                strip = strips.setdefault(one.group, Strip(one.text, []))
                caption = f"{step} best" if step == run.best_step else f"{step}"
                strip.frames.append(_picture(folder, one, f"step {step}", caption))
    return [strip for strip in strips.values() if len(strip.frames) > 1]


def _cards(
    run: RunRecord, base: Sequence[Transcript], trained: Sequence[Transcript], gain_P: np.ndarray
) -> dict[int, Card]:
    before, after = _by_group(base), _by_group(trained)
    return {
        group: Card(
            text=before[group][0].text,
            base=[_picture(folder_of_test(run.path, "base"), one, "base") for one in before[group]],
            trained=[_picture(folder_of_test(run.path, "trained"), one, "trained") for one in after[group]],
            gain=float(gain_P[group]),
            lines=_lines(before[group], after[group]),
        )
        for group in sorted(before.keys() & after.keys())
    }


def _by_group(transcripts: Sequence[Transcript]) -> dict[int, list[Transcript]]:
    """Transcripts with a picture, prompt by prompt."""
    groups: dict[int, list[Transcript]] = {}
    for one in transcripts:
        if one.picture is not None:
            groups.setdefault(one.group, []).append(one)
    return groups


def _lines(before: Sequence[Transcript], after: Sequence[Transcript]) -> list[Line]:
    words = {1: "yes", 0: "no", None: "error"}
    return [
        Line(
            text=answer.text,
            kind=answer.kind,
            base=[words[one.answers[place].value] for one in before],
            trained=[words[one.answers[place].value] for one in after],
        )
        for place, answer in enumerate(before[0].answers)
    ]


def _picture(folder: Path, one: Transcript, what: str, caption: str | None = None) -> Picture:
    assert one.picture is not None
    file = folder / one.picture
    height, width = one.size
    longest = max(one.size)
    scale = max(1, SHOWN_SIDE // longest) if longest <= LOSSLESS_SIDE else SHOWN_SIDE / longest
    reward = "no reward" if one.reward is None else f"{one.reward:.2f}"
    return Picture(
        source=f"data:{MEDIA_TYPES[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}",
        width=round(width * scale),
        height=round(height * scale),
        crisp=longest <= LOSSLESS_SIDE,
        alt=f"{what}, seed {one.seed}: {one.text}",
        caption=reward if caption is None else caption,
    )


def _spread(steps: Sequence[int], keep: int) -> Collection[int]:
    """At most FRAMES of the steps: the first, the last, `keep`, and others evenly between."""
    if len(steps) <= FRAMES:
        return steps
    places = {round(frame * (len(steps) - 1) / (FRAMES - 1)) for frame in range(FRAMES)}
    best = steps.index(keep)
    if best not in places:
        places.discard(min(places - {0, len(steps) - 1}, key=lambda place: abs(place - best)))
        places.add(best)
    return [steps[place] for place in sorted(places)]
