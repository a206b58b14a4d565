"""`lens-rl doctor`: what is installed, what each recipe still needs here, and the fix."""

import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.table import Table

CORE = (
    "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "pydantic", "jinja2",
    "openai", "tenacity", "pandas", "typer", "rich", "tensorboard", "pillow",
)  # fmt: skip
EXTRAS = {
    "megatron-energon": "pretrain", "daft": "data", "faiss-cpu": "data", "opencv-python-headless": "data", "ray": "ray",
    "rapidocr": "text", "onnxruntime": "text", "pytest": "test",
}  # fmt: skip
NEEDED_FOR = {
    "megatron-energon": "lens-rl pretrain", "daft": "lens-rl data clean", "faiss-cpu": "lens-rl data clean",
    "opencv-python-headless": "lens-rl data", "ray": "--engine ray",
    "rapidocr": "render-text --check", "onnxruntime": "render-text --check", "pytest": "scripts/test.sh",
}  # fmt: skip


def examine() -> dict[str, Any]:
    """Findings as plain data; `ready` says whether the default recipe can run."""
    core = {name: _version(name) for name in CORE}
    recipes = {name: _recipe_needs(name) for name in _recipes()} if all(core.values()) else {}
    return {
        "device": _device(core["torch"]),
        "core": core,
        "extras": {name: _version(name) for name in EXTRAS},
        "recipes": recipes,
        "ready": recipes.get("shapes") == [],
    }


def print_findings(findings: dict[str, Any]) -> None:
    console = Console()
    console.print(f"device: {findings['device']}", highlight=False)
    table = Table("package", "version", "needed for", "fix")
    for name, found in findings["core"].items():
        table.add_row(name, found or "[red]missing[/]", "everything", "" if found else "bash scripts/rl.sh")
    for name, found in findings["extras"].items():
        fix = "" if found else f"pip install -e '.\\[{EXTRAS[name]}]' -c constraints.txt"
        table.add_row(name, found or "[dim]absent[/]", NEEDED_FOR[name], fix)
    console.print(table)
    recipes = Table("recipe", "can run here", "what is missing, and the fix")
    for name, missing in findings["recipes"].items():
        recipes.add_row(name, "no" if missing else "yes", "\n".join(missing))
    console.print(recipes)


def _recipe_needs(name: str) -> list[str]:
    from lens_rl.job import check_run
    from pipelines.rl import load

    return check_run(load(name, []))[1]


def _recipes() -> list[str]:
    from lens_rl.recipe import RECIPES

    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device(torch_version: str | None) -> str:
    if torch_version is not None:
        import torch

        if torch.cuda.is_available():
            return f"{torch.cuda.get_device_name()} (torch {torch_version})"
        if shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi"], capture_output=True).returncode == 0:
            return (
                f"CPU: there is an NVIDIA GPU, but torch {torch_version} cannot use it; install a CUDA build of torch"
            )
    return f"CPU, {os.cpu_count()} cores (torch {torch_version or 'missing'})"
