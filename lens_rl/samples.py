"""What an evaluation showed, kept for people: a transcript of every image, and some of the pictures.

    samples/validation-000120/    transcripts.jsonl, a row an image; pictures of the first prompts
    samples/test-base/            the start and the best checkpoint on the same prompts and seeds:
    samples/test-trained/         pictures of the first prompts and of those that changed most
    samples/contact-sheet.png     the first prompts again, as one picture

P prompts, G images of each.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lens_core.records import Size
from lens_core.runs import RunProblem, whole_file, whole_folder
from lens_rl.intervals import means_P
from lens_rl.sheet import draw_sheet

if TYPE_CHECKING:  # a report is read without torch
    from lens_rl.evaluation import Scores

FIRST_OF_TEST, FIRST_OF_VALIDATION, EXTREMES = 12, 6, 4
"""Prompts whose pictures are kept: the first ones, which nobody chose, and so many of each of the `Extremes`."""
PICTURES_PER_PROMPT = 2
LONGEST_SIDE = 256
"""Pixels; larger pictures are kept smaller, which is enough to look at."""
LOSSLESS_SIDE = 128
"""Pixels; pictures up to this size are kept to the pixel."""
SHEET_CELL = 144
"""Pixels of the longest side of a picture on the contact sheet; small pictures are enlarged."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A criterion and what the judge said of it: `value` is 1, 0, or None where the judge failed."""

    name: str
    kind: str
    text: str
    value: int | None
    status: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """One image of one prompt: how it was made, and everything that was said of it."""

    prompt_id: str
    text: str
    group: int
    index: int
    size: Size
    seed: int
    reward: float | None
    answers: tuple[Answered, ...]
    picture: str | None
    """File beside the transcripts, or None where the picture was not kept."""


@dataclass(frozen=True, slots=True)
class Extremes:
    """Numbers of the prompts to look at first, the most extreme in front."""

    improved: list[int]
    worsened: list[int]
    lowest: list[int]
    """With the lowest reward after training."""


def keep_validation(run: Path, step: int, scores: "Scores") -> None:
    """Keep a validation of the run folder `run`; one made again after a crash takes the place of the first."""
    _keep(folder_of_validation(run, step), scores, range(FIRST_OF_VALIDATION))


def keep_test(run: Path, base: "Scores", trained: "Scores") -> None:
    """Keep both sides of the closing test of the run folder `run`."""
    chosen = extremes(base.reward_PG, trained.reward_PG)
    shown = {*range(FIRST_OF_TEST), *chosen.improved, *chosen.worsened, *chosen.lowest}
    _keep(folder_of_test(run, "base"), base, shown)
    _keep(folder_of_test(run, "trained"), trained, shown)
    with whole_file(run / "samples" / "contact-sheet.png") as draft:
        _contact_sheet(base, trained).save(draft, "PNG", optimize=True)


def folder_of_validation(run: Path, step: int) -> Path:
    return run / "samples" / f"validation-{step:06d}"


def folder_of_test(run: Path, side: str) -> Path:
    """Of `side` "base" or "trained"."""
    return run / "samples" / f"test-{side}"


def read_transcripts(folder: Path) -> list[Transcript]:
    """The transcripts of one evaluation, prompt by prompt; none where the folder is not there."""
    file = folder / "transcripts.jsonl"
    if not file.is_file():
        return []
    try:
        # Not splitlines(): a text may hold line separators that are no ends of lines in JSON.
        return [_transcript(json.loads(line)) for line in file.read_text(encoding="utf-8").split("\n") if line]
    except (ValueError, TypeError, KeyError) as error:
        raise RunProblem(f"{file} is not a file of transcripts: {error}; move its folder away") from error


def rewards_PG(transcripts: Collection[Transcript]) -> np.ndarray:
    """The rewards of an evaluation as an array, NaN for an image without one."""
    shape = [1 + max(getattr(one, axis) for one in transcripts) for axis in ("group", "index")]
    reward_PG = np.full(shape, np.nan)
    for one in transcripts:
        if one.reward is not None:
            reward_PG[one.group, one.index] = one.reward
    return reward_PG


def extremes(base_PG: np.ndarray, trained_PG: np.ndarray) -> Extremes:
    """Which prompts gained most, lost most, and stand lowest; prompts without a reward on both sides are left out."""
    missing_PG = np.isnan(base_PG) | np.isnan(trained_PG)
    before_P = means_P(np.where(missing_PG, np.nan, base_PG))
    after_P = means_P(np.where(missing_PG, np.nan, trained_PG))
    gain_P = after_P - before_P

    def smallest(values_P: np.ndarray, wanted_P: np.ndarray) -> list[int]:
        order = np.argsort(values_P, kind="stable")  # NaN come last, and no comparison holds for them
        return [int(group) for group in order if wanted_P[group]][:EXTREMES]

    return Extremes(
        improved=smallest(-gain_P, gain_P > 0),
        worsened=smallest(gain_P, gain_P < 0),
        lowest=smallest(after_P, after_P < 1),
    )


def _keep(folder: Path, scores: "Scores", shown: Collection[int]) -> None:
    with whole_folder(folder) as draft:
        lines = []
        for order, sample, verdicts in scores.made:
            picture = None
            if order.group in shown and order.index < PICTURES_PER_PROMPT:
                picture = _save(sample.image, draft / f"{order.group:04d}-{order.index}")
            reward = scores.reward_PG[order.group, order.index]
            transcript = Transcript(
                prompt_id=order.prompt.id,
                text=order.prompt.text,
                group=order.group,
                index=order.index,
                size=order.size,
                seed=order.seed,
                reward=None if np.isnan(reward) else float(reward),
                answers=tuple(
                    Answered(criterion.name, criterion.kind, criterion.text, verdict.value, verdict.status)
                    for criterion, verdict in zip(order.prompt.criteria, verdicts, strict=True)
                ),
                picture=picture,
            )
            lines.append(json.dumps(asdict(transcript), ensure_ascii=False) + "\n")
        (draft / "transcripts.jsonl").write_text("".join(lines), encoding="utf-8")


def _contact_sheet(base: "Scores", trained: "Scores") -> Image.Image:
    """Base and trained pictures of the first test prompts."""
    left, right = _first_pictures(base), _first_pictures(trained)
    texts = {order.group: order.prompt.text for order, _, _ in base.made}
    rows = [(texts[group], [left[group], right[group]]) for group in sorted(left)]
    return draw_sheet(rows, ("base", "trained"), cell=SHEET_CELL)


def _first_pictures(scores: "Scores") -> dict[int, list[np.ndarray]]:
    pictures: dict[int, list[np.ndarray]] = {}
    for order, sample, _ in scores.made:
        if order.group < FIRST_OF_TEST and order.index < PICTURES_PER_PROMPT:
            pictures.setdefault(order.group, []).append(sample.image)
    return pictures


def _save(image: np.ndarray, stem: Path) -> str:
    """Small pictures as PNG, to the pixel; large ones made smaller, as WebP. Returns the file's name."""
    picture = Image.fromarray(image)
    if max(picture.size) <= LOSSLESS_SIDE:
        file = stem.with_suffix(".png")
        picture.save(file, optimize=True)
    else:
        file = stem.with_suffix(".webp")
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        picture.save(file, quality=80)
    return file.name


def _transcript(row: dict[str, Any]) -> Transcript:
    height, width = row["size"]
    answers = tuple(Answered(**answer) for answer in row["answers"])
    return Transcript(**{**row, "size": (height, width), "answers": answers})
