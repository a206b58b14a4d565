"""`lens-rl rubric`: write one, lint it, see what a judge reads, try it, compare two."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import EXIT_PROBLEM, NO_OVERRIDES, Json, problems_explained

rubric_app = typer.Typer(no_args_is_help=True, help="Rubrics: what is true of a picture that does what it was asked.")
RubricName = Annotated[str, typer.Argument(metavar="RUBRIC", help="A rubric's name (shapes, lens) or a YAML file.")]
Facts = Annotated[list[str], typer.Option("--fact", metavar="NAME=VALUE", help="A fact of the prompt.")]
JudgeFields = Annotated[
    list[str],
    typer.Option(metavar="FIELD=VALUE", help="Field of a recipe's `judge` section; the embedded judge if none."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Ask a judge that may cost more than $0.10, or nobody knows what.")]


@rubric_app.command("new")
@problems_explained
def rubric_new(folder: Annotated[Path, typer.Argument(metavar="NAME", help="A new folder of yours.")]) -> None:
    """Write a commented rubric and its judge template to start from.

    Example: lens-rl rubric new my
    """
    from pipelines.rubric import new

    for file in new(folder):
        print(file)


@rubric_app.command("lint")
@problems_explained
def rubric_lint(
    rubric: RubricName,
    on: Annotated[
        str | None,
        typer.Option(help="Facts to try it on: a taxonomy tree, or a prompt file; its own examples if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with a rubric, before a judge is paid to find it out.

    Example: lens-rl rubric lint my/rubric.yaml
    """
    from dataclasses import asdict

    from pipelines.rubric import findings

    found = findings(rubric, on)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        print("\n".join(map(str, found)) or f"{rubric}: nothing to find fault with")
    if found:
        raise typer.Exit(EXIT_PROBLEM)


@rubric_app.command("show")
@problems_explained
def rubric_show(
    rubric: RubricName,
    prompt: Annotated[str, typer.Option(help="Text of the prompt.")],
    fact: Facts = NO_OVERRIDES,
    as_json: Json = False,
) -> None:
    """Print what the judge will read: every criterion of a prompt, word for word.

    Example: lens-rl rubric show my/rubric.yaml --prompt "a red circle" --fact colour=red
    """
    from dataclasses import asdict

    from rich.console import Console

    from pipelines import rubric as job

    facts = job.facts_of(rubric, fact)
    shown = job.show(rubric, prompt, facts)
    if as_json:
        print(json.dumps([asdict(one) for one in shown], indent=2))
    else:
        job.print_shown(shown, facts, Console())


@rubric_app.command("try")
@problems_explained
def rubric_try(
    rubric: RubricName,
    images: Annotated[Path, typer.Option(metavar="DIR", help="Pictures, say of `lens-rl generate`.")],
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompt file with their facts, found by text or by id.")
    ] = None,
    fact: Facts = NO_OVERRIDES,
    judge: JudgeFields = NO_OVERRIDES,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Judge a folder of pictures: which criteria hold. Says first what it would cost; stored verdicts are kept.

    Example: lens-rl rubric try my/rubric.yaml --images pictures --prompts prompts.jsonl
    """
    from rich.console import Console

    from pipelines import rubric_try as job

    pictures = job.pictures_in(images, prompts, job.facts_given(fact))
    with job.Trial(rubric, pictures, job.judge_of(judge), images / job.STORE) as trial:
        job.agree_to(trial.estimate(), yes=yes, console=Console(stderr=True))
        judged = trial.judge()
    if as_json:
        print(json.dumps(job.plain(judged), indent=2))
    else:
        Console().print(*job.tables(judged))


@rubric_app.command("diff")
@problems_explained
def rubric_diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A rubric's name or file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    on: Annotated[Path, typer.Option(metavar="DIR", help="A folder of pictures, a run folder or its verdict store.")],
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts of the pictures.")] = None,
    fact: Facts = NO_OVERRIDES,
    judge: JudgeFields = NO_OVERRIDES,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Show which verdicts and rewards change from one rubric to another, on pictures or on a run's store.

    Example: lens-rl rubric diff shapes my/rubric.yaml --on runs/shapes-seed0
    """
    from rich.console import Console

    from pipelines import rubric_diff as job

    if job.is_run(on):
        found = job.difference(job.of_a_run(on, a, b))
    else:
        found = job.difference(job.of_pictures(on, a, b, prompts, fact, judge, yes=yes, console=Console(stderr=True)))
    if as_json:
        print(json.dumps(job.plain(found), indent=2))
    else:
        job.print_difference(found, Console())


@rubric_app.command("write")
@problems_explained
def rubric_write(
    prompts: Annotated[Path, typer.Argument(metavar="PROMPTS", help="A prompt file (.txt, .jsonl).")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Prompt file (.jsonl) to write.")],
    model: Annotated[
        list[str], typer.Option(metavar="FIELD=VALUE", help="model=NAME, base_url=URL, api_key_env=NAME of the writer.")
    ],
    rubric: Annotated[str, typer.Option(help="Rubric whose criteria about the whole picture come last.")] = "lens",
    as_json: Json = False,
) -> None:
    """Let a language model write criteria for the prompts that have none, ten each. Stopped, it goes on.

    Example: lens-rl rubric write prompts.txt --out with-criteria.jsonl --model model=gpt-4.1-mini
    """
    from dataclasses import asdict

    from lens_core.recipes import recipe_of
    from lens_rl.judges.client import ChatModel
    from lens_rl.recipe import Endpoint
    from pipelines.rubric_write import write

    written = write(prompts, out, ChatModel(recipe_of(Endpoint, model, "--model"), where="--model"), rubric=rubric)
    if as_json:
        print(json.dumps(asdict(written), indent=2))
    else:
        print(f"{out}: {written.prompts} prompts, {written.prompts - written.kept} of them with new criteria")
