"""`lens-rl data caption`: dense and brief captions of pictures, by a vision-language model.

OUT/
  captions.sqlite    every caption and every request, as they came; also read by `lens-rl judge report`
  captions.jsonl     a row a captioned picture, in the order of the source
  left-out.jsonl     the others, with the reason
  summary.json       counts, lengths, cost
  config.yaml        which source they are of

A command that was stopped goes on where it was. The model and the template may change: captions of the others stay in
the store, and cost nothing when one comes back to them.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import yaml
from rich.console import Console
from rich.table import Table

from lens_core.progress import ProgressDisplay
from lens_core.recipes import RecipeProblem, nearest, recipe_of
from lens_core.runs import RunFolder, whole_file, write_whole
from lens_rl.judges.prices import price_of, refuse_unpriced
from pipelines.data.captioned import LEFT_OUT, ROWS, Captioned
from pipelines.data.captioning.captioner import WHERE, Captioner, CaptionModel
from pipelines.data.captioning.loop import Captioning, CaptionLedger, Tally, too_many
from pipelines.data.captioning.pictures import Picture, is_cleaned, pictures_of
from pipelines.data.captioning.statistics import MEAN_OF_LENS, statistics
from pipelines.data.captioning.store import CaptionStore
from pipelines.data.cleaning.sources import place_of, refuse_out_inside
from pipelines.data.needs import need
from rubrics.captions import KINDS, CaptionTemplate, Kind

STORE, SUMMARY = "captions.sqlite", "summary.json"


@dataclass(frozen=True)
class Order:
    """What to caption, and where to."""

    source: str
    out: Path
    kinds: tuple[Kind, ...] = ("dense",)
    template: Path | None = None
    """A template of the user's own; `rubrics/caption.j2` if not given."""


def captioner(fields: Sequence[str]) -> Captioner:
    """The model that FIELD=VALUE describe. Raises RecipeProblem."""
    return recipe_of(Captioner, fields, WHERE)


def kinds_named(name: str) -> tuple[Kind, ...]:
    """Raises RecipeProblem for a name that is none."""
    if name == "both":
        return KINDS
    for kind in KINDS:
        if kind == name:
            return (kind,)
    raise RecipeProblem(f"--kind {name}: there is no such kind{nearest(name, (*KINDS, 'both'))}: dense, brief or both")


def caption(order: Order, section: Captioner) -> dict[str, Any]:
    """Write the captions that are missing, and the rows of all; returns the summary.

    Raises RecipeProblem or JudgeProblem for what cannot work, before any picture is read, and JudgeProblem where the
    budget is spent or too many captions could not be had.
    """
    need("captioning", "data", "cv2", "pyarrow")
    if not is_cleaned(order.source):
        refuse_out_inside(order.source, order.out)
    template = CaptionTemplate(order.template) if order.template else CaptionTemplate()
    model = CaptionModel(section, template)
    refuse_unpriced(model.name, section.price, section.budget_usd, where=WHERE)
    total = sum(1 for _ in pictures_of(order.source))  # a source that is not there is told now
    with RunFolder(order.out) as folder, closing(CaptionStore(order.out / STORE)) as store:
        folder.keep_config(yaml.safe_dump({"source": place_of(order.source)}))
        tally = asyncio.run(_run(order, section, model, store, total))
        return _conclude(order, section, model, store, tally)


async def _run(order: Order, section: Captioner, model: CaptionModel, store: CaptionStore, total: int) -> Tally:
    ledger = CaptionLedger(store, model.identity, price_of(model.name, section.price), section.budget_usd)
    work = Captioning(
        model, store, ledger, order.kinds, concurrency=section.concurrency, max_error_share=section.max_error_share
    )
    try:
        with ProgressDisplay("pictures", total) as bar:
            return await work.run(pictures_of(order.source), lambda tally: bar.update(tally.pictures, _note(tally)))
    finally:
        await model.close()


def _conclude(
    order: Order, section: Captioner, model: CaptionModel, store: CaptionStore, tally: Tally
) -> dict[str, Any]:
    """Write rows and summary from what is stored."""
    texts: dict[Kind, list[str]] = {kind: [] for kind in order.kinds}
    captioned = left_out = 0
    with _lines(order.out / ROWS) as kept, _lines(order.out / LEFT_OUT) as missing:
        for picture in pictures_of(order.source):
            found, reasons = _of_picture(order, model, store, tally, picture)
            if found is not None:
                captioned += 1
                kept.write(found.line() + "\n")
                for kind in order.kinds:
                    texts[kind] += found.captions.get(kind, [])
            if reasons:
                left_out += 1
                row = {"key": picture.reference.key, "reason": "; ".join(reasons)}
                missing.write(json.dumps(row, ensure_ascii=False) + "\n")
    summary = {
        "pictures": tally.pictures,
        "captioned": captioned,
        "left_out": left_out,
        "unreadable": len(tally.unreadable),
        "failed": dict(tally.failed.most_common()),
        "asked_now": tally.asked,
        "model": model.identity,
        "cost_usd": store.cost(model.identity),
        "kinds": {kind: statistics(found) for kind, found in texts.items() if found},
    }
    write_whole(order.out / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    if tally.failed.total() > section.max_error_share * max(tally.asked, 1):
        raise too_many(tally, section.max_error_share)
    return summary


def _of_picture(
    order: Order, model: CaptionModel, store: CaptionStore, tally: Tally, picture: Picture
) -> tuple[Captioned | None, list[str]]:
    """The row of a picture, None where it has no caption at all; and what is missing."""
    one = picture.reference
    if reason := tally.unreadable.get(one.key):
        return None, [reason]
    sha = tally.shas[one.key]
    captions: dict[str, list[str]] = {}
    reasons: list[str] = []
    for kind in order.kinds:
        stored = store.caption(sha, model.identity, kind)
        if stored is not None and stored.status == "ok":
            captions[kind] = [stored.text]
        else:
            reasons.append(f"{kind}: {stored.status}: {stored.reason}" if stored else f"{kind}: not asked")
    if not captions:
        return None, reasons
    facts = {"captioned_by": model.identity}
    return Captioned(one.key, one.where, sha, captions, facts, one.column, one.offset, one.length), reasons


def print_summary(summary: Mapping[str, Any], out: Path, console: Console) -> None:
    table = Table("captions", "number", "words: mean", "5 %", "median", "95 %", "with quotations")
    for kind, found in summary["kinds"].items():
        words = found["words"]
        figures = (f"{words[name]:.0f}" for name in ("mean", "p5", "p50", "p95"))
        table.add_row(kind, f"{found['captions']:,}", *figures, f"{found['quoting']:,}")
    console.print(table)
    if "dense" in summary["kinds"]:
        console.print(f"Dense captions of the Lens paper have {MEAN_OF_LENS} words in the mean.", highlight=False)
    cost = "at an unknown price" if summary["cost_usd"] is None else f"for ${summary['cost_usd']:.4f}"
    console.print(
        f"{summary['captioned']:,} of {summary['pictures']:,} pictures captioned {cost}; {summary['left_out']:,} have "
        f"something missing, listed in {out / LEFT_OUT}",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _lines(path: Path) -> Iterator[TextIO]:
    """A text file to write; it appears when the block ends."""
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        yield file


def _note(tally: Tally) -> str:
    parts = [f"{count} {status}" for status, count in tally.failed.most_common()]
    return ", ".join([*parts, *([f"{len(tally.unreadable)} unreadable"] if tally.unreadable else [])])
