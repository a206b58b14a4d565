"""The `lens-rl` command: a list of verbs, each a few lines. Heavy imports wait inside the verbs."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="lens-rl",
    help="Train text-to-image models after pretraining: rubric-rewarded RL, evaluation, fine-tuning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)

Overrides = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a field of the recipe.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
NO_OVERRIDES: list[str] = []
NO_FILES: list[Path] = []
OFFLINE = ["offline"]

EXIT_PROBLEM, EXIT_INTERRUPTED = 1, 130


def problems_explained(verb: Callable[..., None]) -> Callable[..., None]:
    """A problem that the user can mend is one message on stderr and exit status 1, without a traceback."""

    @wraps(verb)
    def explained(*args: Any, **kwargs: Any) -> None:
        from lens_core.runs import RunProblem

        try:
            verb(*args, **kwargs)
        except (ValueError, RunProblem) as problem:
            print(f"lens-rl: {problem}", file=sys.stderr)
            raise typer.Exit(EXIT_PROBLEM) from problem
        except KeyboardInterrupt:
            print("lens-rl: interrupted", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return explained


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


prompts_app = typer.Typer(no_args_is_help=True, help="Prompt sets: build one from a taxonomy tree, look into it.")
app.add_typer(prompts_app, name="prompts")
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


features_app = typer.Typer(
    no_args_is_help=True, help="Text features kept on disk: nothing else needs the text encoder."
)
app.add_typer(features_app, name="features")


@features_app.command("cache")
@problems_explained
def features_cache(
    out: Annotated[Path, typer.Option(help="Folder of the cache; texts that are there are not encoded again.")],
    prompts: Annotated[
        list[Path], typer.Option(help="Prompt file (.jsonl or .txt); may be given several times.")
    ] = NO_FILES,
    recipe: Annotated[
        str | None, typer.Option(help="RL recipe whose prompts, of all splits, and model to take instead.")
    ] = None,
    set_: Overrides = NO_OVERRIDES,
    model: Annotated[str | None, typer.Option(help="`shapes` or a model folder; the recipe's if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Encode prompts once. Started again after a stop, it goes on where it was.

    Example: lens-rl features cache --prompts prompts.jsonl --model checkpoints/Lens --out features
    """
    from rich.console import Console

    from pipelines import features as job
    from pipelines.rl import load

    if bool(prompts) == bool(recipe):
        raise ValueError("give either --prompts FILE (and --model), or --recipe NAME (and --set)")
    if set_ and not recipe:
        raise ValueError("--set: there is no recipe to override; give --recipe NAME")
    config = load(recipe, set_) if recipe else None
    if not (chosen := model or (config and config.model)):
        raise ValueError("--model: name the model folder whose text encoder is to read the prompts")
    texts = job.texts_of_recipe(config) if config else job.texts_of_files(prompts)
    summary = job.cache(texts, chosen, out, threads=config.threads if config else 0)
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        job.print_summary(summary, Console())


@features_app.command("show")
@problems_explained
def features_show(
    cache: Annotated[Path, typer.Argument(help="Folder of a feature cache.")],
    as_json: Json = False,
) -> None:
    """Say what a feature cache holds, and of which text encoder.

    Example: lens-rl features show features
    """
    from rich.console import Console

    from base_model.feature_cache import FeatureCache
    from pipelines.features import print_summary

    summary = FeatureCache(cache).summary()
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        print_summary(summary, Console())


judge_app = typer.Typer(no_args_is_help=True, help="Judges: what they cost, what they say, and whether to trust them.")
app.add_typer(judge_app, name="judge")
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


rubric_app = typer.Typer(no_args_is_help=True, help="Rubrics: what is true of a picture that does what it was asked.")
app.add_typer(rubric_app, name="rubric")
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

    Example: lens-rl rubric write prompts.txt --out with-criteria.jsonl --model model=gpt-4.1
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
