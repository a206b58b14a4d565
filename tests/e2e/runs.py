"""Small whole runs for the end-to-end tests, and what must be equal between two of them."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from lens_core.recipes import find_recipe, load_recipe
from lens_core.runs import RunFolder
from lens_rl.job import run_job
from lens_rl.recipe import RECIPES, RlRecipe
from tests.tiny import tiny_generator

SMALL = (
    "steps=12",
    "save_every=3",
    "threads=1",
    "prompts.train=40",
    "prompts.validation=34",
    "prompts.test=34",
    "prompts.per_step=4",
    "rollout.images_per_prompt=4",
    "rollout.num_steps=2",
    "rollout.batch_size=8",
    "evaluation.every=4",
    "evaluation.num_steps=2",
    "evaluation.images_per_prompt=1",
    "optimizer.lr=1e-3",
    "guards.max_drop=1.0",
    "guards.max_norm_ratio=100.0",
    "guards.min_diversity=0.0",
)


def model(folder: Path) -> Path:
    """An untrained model on disk: pictures of noise, in which now and then a criterion holds."""
    tiny_generator().save(folder)
    return folder


def command(model_folder: Path, runs: Path, name: str, *overrides: str) -> list[str]:
    sets = [part for value in (*SMALL, f"model={model_folder}", *overrides) for part in ("--set", value)]
    return [sys.executable, "-m", "pipelines", "rl", "shapes", "--runs", str(runs), "--name", name, *sets]


def finished_run(folder: Path) -> Path:
    """A run of seconds, run to its end in this process."""
    start = model(folder.parent / "start")
    config = load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [*SMALL, f"model={start}"])
    assert run_job(config, folder).reason == "finished"
    return folder


def finish(arguments: list[str], timeout: float = 240) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done


def state(run: Path) -> dict[str, object]:
    """Everything of a run that is promised: weights of all roles, optimiser, metrics, verdicts, samples; no timings."""
    folder = RunFolder(run)
    found: dict[str, object] = {"checkpoints": folder.checkpoints()}
    for step in folder.checkpoints():
        for file in sorted(folder.checkpoint(step).rglob("*.safetensors")):
            tensors = load_file(file)
            found |= {f"{step}/{file.parent.name}/{file.name}/{k}": v.numpy().tobytes() for k, v in tensors.items()}
    found["metrics"] = [
        {name: value for name, value in row.items() if not name.startswith("seconds/")} for row in folder.metrics()
    ]
    columns = "image_sha, judge_id, question_sha, prompt_id, criterion, kind, value, status, p, mass, tokens, cost"
    with sqlite3.connect(run / "verdicts-rank0.sqlite") as database:
        found["verdicts"] = database.execute(f"SELECT {columns} FROM verdicts ORDER BY 1, 2, 3").fetchall()
    summary = (run / "summary.json").read_text()
    found["summary"] = "\n".join(line for line in summary.splitlines() if "wall_seconds" not in line)
    found |= {
        str(file.relative_to(run)): file.read_bytes() for file in sorted((run / "samples").rglob("*")) if file.is_file()
    }
    return found


def assert_equal(one: dict[str, object], other: dict[str, object]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == other[name], f"{name} differs"
