"""`lens-rl prompts`: build a set, count what it covers, look into it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import NO_FILES, OFFLINE, Json, problems_explained

prompts_app = typer.Typer(no_args_is_help=True, help="Prompt sets: build one from a taxonomy tree, look into it.")
SetName = Annotated[str, typer.Argument(metavar="SET", help="A set's name (lens-rl-8k) or a prompt file.")]


@prompts_app.command("build")
@problems_explained
def prompts_build(
    out: Annotated[Path, typer.Option(help="What to write: a .jsonl, .jsonl.gz or .parquet file.")],
    tree: Annotated[str, typer.Option(help="A tree's name (lens, shapes) or the path of a YAML file.")] = "lens",
    writer: Annotated[
        list[str],
        typer.Option(metavar="WRITER", help="`offline`, or model=NAME, base_url=URL, ... of a language model."),
    ] = OFFLINE,
    count: Annotated[int | None, typer.Option(min=1, help="How many prompts; the tree's size if not given.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    rubric: Annotated[
        str | None, typer.Option(help="Rubric that writes the criteria; the one with the tree's name if not given.")
    ] = None,
    subset: Annotated[str, typer.Option(help="all, half, quarter or without-text.")] = "all",
    benchmark: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Prompt file of a benchmark, none of which may be repeated.")
    ] = NO_FILES,
    pass_rates: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Run folder, or JSON of pass rates by prompt id: ask more between 0 and 1."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a prompt set with its criteria and a manifest; the same command gives the same bytes.

    Example: lens-rl prompts build --tree lens --out prompts.jsonl
    """
    from rich.console import Console

    from pipelines import prompts as job

    model = None if writer == OFFLINE else job.language_model(writer)
    order = job.Order(tree, out, count, seed, rubric, job.subset_named(subset), tuple(benchmark), pass_rates)
    manifest = job.build_set(order, model)
    if as_json:
        print(json.dumps(manifest, indent=2))
    else:
        job.print_manifest(manifest, out, Console())


@prompts_app.command("stats")
@problems_explained
def prompts_stats(
    name: SetName = "lens-rl-8k",
    html: Annotated[Path | None, typer.Option(help="Also write a page with pictures of the coverage.")] = None,
    as_json: Json = False,
) -> None:
    """Count what a set covers.

    Example: lens-rl prompts stats lens-rl-8k --html coverage.html
    """
    from rich.console import Console

    from pipelines import prompts as job

    prompts = job.read_set(name)
    found = job.statistics(prompts)
    if html:
        job.write_page(name, prompts, found, html)
    if as_json:
        print(json.dumps(found.plain(), indent=2))
    else:
        job.print_statistics(found, Console())


@prompts_app.command("show")
@problems_explained
def prompts_show(
    name: SetName = "lens-rl-8k",
    count: Annotated[int, typer.Option("-n", min=1, help="How many, spread over the set.")] = 5,
    category: Annotated[str | None, typer.Option(help="Of this category only.")] = None,
    as_json: Json = False,
) -> None:
    """Show some prompts of a set with their dimensions and criteria.

    Example: lens-rl prompts show lens-rl-8k -n 3 --category animal
    """
    from dataclasses import asdict

    from rich.console import Console

    from pipelines import prompts as job

    shown = job.some(job.read_set(name), count, category)
    if as_json:
        print(json.dumps([asdict(prompt) for prompt in shown], indent=2, ensure_ascii=False))
    else:
        job.print_prompts(shown, Console())
