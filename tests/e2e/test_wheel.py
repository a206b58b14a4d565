"""The installed wheel is complete: every package with its data, and the main recipe ready to start."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = (".yaml", ".j2", ".json", ".safetensors", ".md", ".css")


@pytest.mark.slow
def test_the_wheel_holds_everything_and_runs_outside_the_clone(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:  # what is committed, not what lies about
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("lens_rl-*.whl")

    packed = set(zipfile.ZipFile(wheel).namelist())
    packages = ("lens_core/", "taxonomy/", "rubrics/", "base_model/", "lens_rl/", "pipelines/")
    wanted = {name for name in tracked if name.startswith(packages) and name.endswith((".py", *DATA))}
    assert wanted <= packed, wanted - packed

    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)

    def said(*command: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "pipelines", *command],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    assert "Plan of shapes" in said("rl", "--recipe", "shapes", "--dry-run")
    sets = ("steps=1", "prompts.train=40", "prompts.validation=34", "prompts.test=34", "prompts.per_step=2")
    said("rl", "--recipe", "shapes", *(part for value in sets for part in ("--set", value)))
    assert (tmp_path / "runs" / "shapes-seed0" / "report.html").is_file()
    assert said("rubric", "new", "mine").split() == ["mine/rubric.yaml", "mine/judge.j2"]
    assert "nothing to find fault with" in said("rubric", "lint", "mine/rubric.yaml")
    assert 'Criterion "colour": The colour blue' in said(
        "rubric", "show", "mine/rubric.yaml", "--prompt", "a blue circle", "--fact", "colour=blue"
    )
    assert "Plan of shapes" in said("rl", "shapes", "--dry-run", "--set", "rubric.path=mine/rubric.yaml")
