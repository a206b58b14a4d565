"""`lens-rl judge compare`: two judges on the same pictures, as numbers, a table and a page."""

import json
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas
from rich import box
from rich.console import Console
from rich.table import Table

from lens_core.progress import ProgressDisplay
from lens_core.recipes import RecipeProblem, load_recipe
from lens_core.runs import write_whole
from lens_rl.judges import open_backend, open_judge
from lens_rl.judges.agreement import Estimate
from lens_rl.judges.comparison import ALL, Comparison, Conduct, compare
from lens_rl.judges.examination import Examination, Picture, examine, num_answers
from lens_rl.judges.judge import RubricJudge, refuse_unreadable
from lens_rl.judges.probes import Probe
from lens_rl.judges.store import VerdictStore
from lens_rl.recipe import Judge, RlRecipe
from lens_rl.report.judges import write_judges
from pipelines.judge_remake import remake_validation
from pipelines.judge_sources import named_judge, pictures_in, spread
from rubrics.rubric import Rubric

STORE = "verdicts.sqlite"
DASH = "\u2013"


def compare_judges(
    names: tuple[str, str], on: Path, *, prompts: Path | None, rubric: str | None, probes: int, out: Path
) -> Comparison:
    """Compare two judges on a verdict store, a run, or a folder of pictures.

    A store is only read: nothing is asked and nothing is probed. Else what is asked is kept in `out`, so that a
    command that was stopped goes on. Raises RecipeProblem and JudgeProblem before any question is asked.
    """
    if on.is_file():
        return compare(*(_from_store(on, name) for name in names))
    if not on.is_dir():
        raise RecipeProblem(f"--on {on}: there is no such verdict store, run folder or folder of pictures")
    judges = [named_judge(name) for name in names]
    out.mkdir(parents=True, exist_ok=True)
    folder = on
    if (on / "config.yaml").is_file():
        rubric = rubric or load_recipe(RlRecipe, on / "config.yaml").rubric.path
        folder, step = remake_validation(on, out)
        with closing(VerdictStore(out / STORE)) as store:
            store.take_over(on / "verdicts-rank0.sqlite", step=step)
    loaded = Rubric.load(rubric or "lens")
    pictures = pictures_in(folder, prompts, loaded)
    for judge, name in zip(judges, names, strict=True):
        _refuse(judge, name, pictures)
    a, b = (_examined(*each, pictures, loaded, probes, out) for each in zip(judges, names, strict=True))
    return compare(a, b)


def _refuse(judge: Judge, name: str, pictures: list[Picture]) -> None:
    """Raise for a judge that cannot be opened, or cannot read what it will be asked."""
    try:
        refuse_unreadable(open_backend(judge), [picture.prompt for picture in pictures])
    except (RecipeProblem, RuntimeError) as problem:
        raise type(problem)(f"judge {name!r}: {problem}") from problem


def _examined(judge: Judge, name: str, pictures: list[Picture], rubric: Rubric, probes: int, out: Path) -> Examination:
    def opened(probe: type[Probe] | None) -> RubricJudge:
        backend = open_backend(judge)
        return open_judge(judge, probe(backend) if probe else backend, rubric, out / STORE)

    probed = spread(len(pictures), probes)
    with ProgressDisplay(name, num_answers(len(pictures), len(probed))) as bar:
        return examine(opened, pictures, probed, done=lambda count: bar.update(count, "answers about a picture"))


def _from_store(path: Path, name: str) -> Examination:
    """What a judge said in a run, by its id or the start of it, or named as any other judge is."""
    with closing(VerdictStore.read(path)) as store:
        ids = [judge_id for (judge_id,) in store.rows("SELECT DISTINCT judge_id FROM verdicts ORDER BY 1")]
        judge_id = _stored_id(path, name, ids)
        query = "SELECT image_sha, question_sha, kind, value, p FROM verdicts WHERE judge_id=?"
        verdicts = pandas.DataFrame(store.rows(query, judge_id), columns=["image", "place", "kind", "value", "p"])
    return Examination(judge_id, verdicts.astype({"value": float, "p": float}), {})


def _stored_id(store: Path, name: str, ids: list[str]) -> str:
    begins = [judge_id for judge_id in ids if judge_id.startswith(name)]
    if not begins:
        try:
            begins = [judge_id for judge_id in ids if judge_id.startswith(open_backend(named_judge(name)).identity)]
        except ValueError:
            begins = []
    if len(begins) == 1:
        return begins[0]
    said = "several verdicts of judges that begin with it" if begins else "no verdict of it"
    raise RecipeProblem(
        f"--on {store} holds {said}, {name!r}; it holds: {', '.join(ids) or 'nothing'}. A run folder or a folder of "
        "pictures instead of the store lets judges be asked that have not been"
    )


def write_page(comparison: Comparison, out: Path) -> Path:
    """The page and the numbers, beside each other."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "comparison.json", json.dumps(as_json(comparison), indent=2) + "\n")
    return write_judges(comparison, out / "comparison.html")


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, with null where a number is not defined."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return plain(asdict(comparison))


def print_comparison(comparison: Comparison, console: Console) -> None:
    for name, conduct in (("A", comparison.a), ("B", comparison.b)):
        errors = f", {conduct.errors} errors" if conduct.errors else ""
        console.print(f"[bold]{name}[/] {conduct.judge_id}{errors}", highlight=False, soft_wrap=True)
    console.print(_agreement_table(comparison))
    if comparison.probed:
        console.print(_probe_table(comparison))
    if (by_itself := _judge_table(comparison)).row_count:
        console.print(by_itself)
    for kind, found in comparison.by_kind.items():
        for warning in found.warnings:
            console.print(f"[yellow]{kind}:[/] {warning}", highlight=False)


def _agreement_table(comparison: Comparison) -> Table:
    names = ("", "n", "kappa", "agree", "PABAK", "bal.", "yes A", "yes B")
    table = _table(f"Agreement on {comparison.pictures} pictures", *names)
    table.caption = "n verdicts. 95 % intervals: bootstrap over pictures. bal.: balanced accuracy of A if B is right."
    for kind, found in comparison.by_kind.items():
        values = (found.agreement, found.pabak, found.balanced_accuracy, found.yes_a, found.yes_b)
        table.add_row(_kind(kind), f"{found.verdicts:,}", with_interval(found.kappa), *map(number, values))
    return table


RATES: dict[str, Callable[[Conduct], dict[str, Estimate]]] = {
    "yes on others": lambda conduct: conduct.yes_bias,
    "contradictions": lambda conduct: conduct.contradictions,
    "repeat flips": lambda conduct: conduct.repeat_flips,
    "order flips": lambda conduct: conduct.order_flips,
}


def _probe_table(comparison: Comparison) -> Table:
    both = (comparison.a, comparison.b)
    shown = {name: rates for name, rates in RATES.items() if any(map(rates, both))}
    table = _table(f"Probes on {comparison.probed} pictures", "", *(f"{name}\nA      B" for name in shown))
    table.caption = "The less, the better."
    for kind in comparison.by_kind:
        cells = (" ".join(f"{number(rates(one).get(kind)):>5}" for one in both) for rates in shown.values())
        table.add_row(_kind(kind), *cells)
    return table


def _table(title: str, *columns: str) -> Table:
    """As narrow as can be, for terminals of 80 columns."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def _kind(kind: str) -> str:
    return f"[bold]{kind}[/]" if kind == ALL else kind


def _judge_table(comparison: Comparison) -> Table:
    table = _table("Each judge by itself", "", "A", "B")
    both = (comparison.a, comparison.b)
    for name, values in (
        ("Brier against the other", [one.calibration and one.calibration.brier for one in both]),
        ("ECE against the other", [one.calibration and one.calibration.ece for one in both]),
        ("|p(c) + p(not c) - 1|", [one.negation_distance for one in both]),
        ("halo", [one.halo for one in both]),
    ):
        if any(values):
            table.add_row(name, *map(with_interval, values))
    return table


def number(found: Estimate | None) -> str:
    """Three digits, or a dash where there is nothing."""
    return DASH if found is None or math.isnan(found.value) else f"{found.value:.3f}"


def with_interval(found: Estimate | None) -> str:
    if found is None or math.isnan(found.value):
        return DASH
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
