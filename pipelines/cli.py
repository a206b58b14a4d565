"""The `lens-rl` command: a list of verbs, each a few lines. Heavy imports wait inside the verbs."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs import data, features, judge, prompts, rubric
from pipelines.verbs.options import EXIT_INTERRUPTED, EXIT_PROBLEM, NO_OVERRIDES, Json, Overrides, problems_explained

app = typer.Typer(
    name="lens-rl",
    help="Train text-to-image models after pretraining: rubric-rewarded RL, evaluation, fine-tuning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
app.add_typer(prompts.prompts_app, name="prompts")
app.add_typer(rubric.rubric_app, name="rubric")
app.add_typer(judge.judge_app, name="judge")
app.add_typer(features.features_app, name="features")
app.add_typer(data.data_app, name="data")


@app.command()
@problems_explained
def rl(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (shapes, lens) or the path of a YAML file.")
    ] = "shapes",
    recipe_option: Annotated[str | None, typer.Option("--recipe", hidden=True)] = None,
    set_: Overrides = NO_OVERRIDES,
    name: Annotated[
        str | None, typer.Option(help="Name of the run folder; the recipe's name and seed if not given.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan; start nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run rubric-rewarded RL. Started again after a stop, it goes on where it was.

    Example: lens-rl rl shapes --set seed=1
    """
    from rich.console import Console

    from pipelines import rl as job

    console = Console()
    config = job.load(recipe_option or recipe, set_)
    if dry_run:
        plan, problems = job.dry_run(config)
        if as_json:
            from dataclasses import asdict

            print(json.dumps({**asdict(plan), "warnings": job.warnings(config), "problems": problems}, indent=2))
        else:
            job.print_plan(config, plan, console)
            for text in job.warnings(config):
                print(f"warning: {text}", file=sys.stderr)
        if problems:
            raise ValueError("this run would not start:\n  - " + "\n  - ".join(problems))
        return
    folder = runs / (name or f"{config.name}-seed{config.seed}")
    outcome = job.run(config, folder)
    if outcome.summary is None:
        print(f"lens-rl: {outcome.reason}; saved in {folder}. The same command goes on from there.", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED)
    if as_json:
        print(json.dumps(outcome.summary, indent=2))
    else:
        job.print_outcome(outcome, folder, console)


@app.command()
@problems_explained
def generate(
    texts: Annotated[list[str] | None, typer.Argument(metavar="PROMPTS", help="What to draw.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A prompt file (.txt, .jsonl), or - for standard input.")
    ] = None,
    model: Annotated[str, typer.Option(help="`shapes`, a model folder, or a run folder.")] = "shapes",
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("pictures"),
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="HxW", help="Height x width, also several times; the model's usual square if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture of each prompt.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt; their seeds count on.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="50 for Lens-Base, 20 for Lens, 4 for Lens-Turbo.")] = 20,
    guidance: Annotated[
        float | None,
        typer.Option(min=1.0, help="5 for Lens-Base and Lens, and so if not given; 1 for Lens-Turbo and small models."),
    ] = None,
    negative: Annotated[str, typer.Option(help="What guidance leads away from; no text if not given.")] = "",
    sampler: Annotated[str, typer.Option(help="euler, the released one, or multistep2, of second order.")] = "euler",
    batch: Annotated[int, typer.Option(min=1, help="Pictures made at once.")] = 4,
    offload: Annotated[
        bool, typer.Option("--offload", help="Leave the text encoder on the CPU: less GPU memory, slower texts.")
    ] = False,
    sheet: Annotated[bool, typer.Option("--sheet", help="Also draw contact-sheet.png, a row a prompt.")] = False,
    as_json: Json = False,
) -> None:
    """Make pictures. Those that are there already are kept, so that a stopped command goes on.

    Example: lens-rl generate "two red circles left of a blue square" --model shapes --out pictures
    """
    from pipelines import generate as job

    how = job.How(
        sizes=tuple(size or ()),
        negative=negative,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        seed=seed,
        count=count,
        batch=batch,
        offload=offload,
    )
    pictures = job.generate(job.read_prompts(texts or [], prompts), model, out, how)
    if as_json:
        print(json.dumps([{"file": str(picture.file), **picture.parameters} for picture in pictures], indent=2))
    else:
        for picture in pictures:
            print(picture.file)
    if sheet:
        print(job.write_sheet(pictures, out), file=sys.stderr if as_json else sys.stdout)


@app.command()
@problems_explained
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="A run folder; several with --compare.")],
    compare: Annotated[bool, typer.Option("--compare", help="Lay several runs over each other.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write; RUN/report.html, or compare.html beside the runs, if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the page of a run, at any time of its life, and print its tables.

    Example: lens-rl report --compare runs/shapes-seed0 runs/shapes-seed1
    """
    from rich.console import Console

    from pipelines.report import report as write

    numbers, file = write(runs, compare=compare, out=out, console=Console(quiet=as_json))
    print(json.dumps(numbers, indent=2) if as_json else f"report: {file}")


@app.command()
@problems_explained
def export(
    run: Annotated[str, typer.Argument(help="A run folder, or any model: 'lens + style.safetensors * 0.8'.")],
    out: Annotated[Path, typer.Option(help="What to write: a new folder, or FILE.safetensors for single-file.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="diffusers: a whole model folder; merged: its transformer alone; single-file: the transformer as one "
            "file; lora: the LoRA as diffusers and as ComfyUI read it.",
        ),
    ] = "diffusers",
    step: Annotated[int | None, typer.Option(min=0, help="Checkpoint of a run; the best if not given.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32 or bf16; as stored if not given.")] = None,
) -> None:
    """Write what a run has learned as files that other programs load.

    Example: lens-rl export runs/lens-seed0 --format lora --out lens-lora
    """
    from pipelines.export import export as write

    for file in write(run, format_, out, step=step, dtype=dtype):
        print(file)


@app.command()
@problems_explained
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (shapes) or the path of a YAML file.")] = "shapes",
    set_: Overrides = NO_OVERRIDES,
    out: Annotated[Path, typer.Option(help="Folder for shards, checkpoints and the finished model.")] = Path(
        "runs/pretrain"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A run of minutes that only shows that all of it works.")
    ] = False,
) -> None:
    """Train a base model from shards: data, VAE, transformer, model card.

    Example: lens-rl pretrain shapes --quick
    """
    from pipelines.pretrain import pretrain as run_pretraining

    run_pretraining(recipe, set_, out, quick=quick)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, what is missing for which recipe, and the fix.

    Example: lens-rl doctor
    """
    from pipelines.doctor import examine, print_findings

    findings = examine()
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        print_findings(findings)
    if not findings["ready"]:
        raise typer.Exit(EXIT_PROBLEM)


def main() -> None:
    app()
