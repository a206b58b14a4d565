"""`lens-rl judge`: what judges cost, what they say, and whether to trust them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import Json, problems_explained

judge_app = typer.Typer(no_args_is_help=True, help="Judges: what they cost, what they say, and whether to trust them.")
NAMES_A_JUDGE = "A recipe, a run folder, a YAML file with the fields of a judge, or backend=...,model=..."


@judge_app.command("compare")
@problems_explained
def judge_compare(
    a: Annotated[str, typer.Argument(metavar="A", help=NAMES_A_JUDGE)],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; where one is known to be better, name it second.")],
    on: Annotated[
        Path,
        typer.Option(help="A folder of pictures; a run, to make its validation again; or a run's verdict store."),
    ],
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompt file of the pictures; else prompts.jsonl beside them.")
    ] = None,
    rubric: Annotated[
        str | None, typer.Option(help="Rubric that says how to ask: the run's own, or `lens`, if not given.")
    ] = None,
    probes: Annotated[
        int,
        typer.Option(min=0, help="Pictures on which each judge is probed too, at five times the cost or less."),
    ] = 32,
    out: Annotated[Path, typer.Option(help="Folder for the verdicts and the page; a stopped command goes on.")] = Path(
        "comparison"
    ),
    as_json: Json = False,
) -> None:
    """Say how far two judges agree, and how each of them answers when it is probed.

    Example: lens-rl judge compare shapes backend=openai_chat,model=gpt-4.1-mini --on runs/shapes-seed0
    """
    from rich.console import Console

    from pipelines import judge_compare as job

    comparison = job.compare_judges((a, b), on, prompts=prompts, rubric=rubric, probes=probes, out=out)
    page = job.write_page(comparison, out)
    if as_json:
        print(json.dumps(job.as_json(comparison), indent=2))
    else:
        job.print_comparison(comparison, Console())
        print(page)


@judge_app.command("try")
@problems_explained
def judge_try(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    judge: Annotated[str, typer.Option(help=NAMES_A_JUDGE)],
    prompt: Annotated[str, typer.Option(help="What the picture was to show.")],
    criterion: Annotated[
        list[str] | None, typer.Option(help="A statement; may be given several times. The rubric's own if not given.")
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(metavar="YAML", help="The same statement, for judges that are programs.")
    ] = None,
    rubric: Annotated[str, typer.Option(help="Rubric that says how to ask: a name or a path.")] = "lens",
    as_json: Json = False,
) -> None:
    """Judge one picture, and show exactly what was sent.

    Example: lens-rl judge try cat.png --judge lens --prompt "a cat" --criterion "There is exactly one cat."
    """
    from rich.console import Console

    from pipelines import judge_try as job

    trial = job.try_judge(judge, image, prompt, criterion or [], check or [], rubric)
    if as_json:
        print(json.dumps(job.as_json(trial), indent=2))
    else:
        job.print_trial(trial, Console())


@judge_app.command("report")
@problems_explained
def judge_report(
    run: Annotated[Path, typer.Argument(help="A run folder, also while it runs, or a verdict store.")],
    as_json: Json = False,
) -> None:
    """Say what the judges of a run did and cost: per step, per kind of criterion, and in all.

    Example: lens-rl judge report runs/shapes-seed0
    """
    from rich.console import Console

    from pipelines import judge_report as job

    found = job.read_accounts(run)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        job.print_accounts(found, Console())
