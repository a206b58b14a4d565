"""A rubric in a folder of the user's own changes the reward of a run, and no Python is written for it."""

import json

from typer.testing import CliRunner

from pipelines.cli import app
from tests.e2e.runs import SMALL, model

STRICT = """\
name: strict
facts: [count, colour, shape, background]
criteria:
  - {name: nothing, kind: count, text: There are exactly nine objects., check: {kind: count, of: object, n: 9}}
"""


def reward(runs, name, *overrides):
    """The mean held-out reward of the untrained model, from a run of one step."""
    sets = [part for value in (*SMALL, "steps=1", *overrides) for part in ("--set", value)]
    result = CliRunner().invoke(app, ["rl", "--recipe", "shapes", "--runs", str(runs), "--name", name, *sets])
    assert result.exit_code == 0, result.output
    return json.loads((runs / name / "summary.json").read_text())["held_out"]["base"]


def test_a_rubric_of_ones_own_changes_the_reward(tmp_path, monkeypatch):
    """Pictures of noise never show nine objects: what a rubric asks for is what the reward says."""
    monkeypatch.chdir(tmp_path)
    start = f"model={model(tmp_path / 'model')}"
    (tmp_path / "strict").mkdir()
    (tmp_path / "strict/rubric.yaml").write_text(STRICT)
    assert CliRunner().invoke(app, ["rubric", "new", "mine"]).exit_code == 0

    found = {
        name: reward(tmp_path, f"run-{name}", start, f"rubric.path={path}")
        for name, path in (("shapes", "shapes"), ("strict", "strict/rubric.yaml"), ("mine", "mine/rubric.yaml"))
    }

    assert found["strict"] == 0.0
    assert found["shapes"] > 0.0 and found["mine"] > 0.0
    assert len(set(found.values())) == 3


FREE = """\
name: free
criteria:
  - {name: something, kind: count, text: There is an object., check: {kind: present, of: object}}
"""


def test_prompts_of_ones_own_need_no_tree_and_no_criteria(tmp_path, monkeypatch):
    """Text alone will do: criteria come from the rubric, or were written into the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "free.yaml").write_text(FREE)
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.txt").write_text(f"one red circle, {split}\n")
    files = ["prompts.tree=null", "prompts.file=train.txt", "prompts.validation_file=validation.txt"]
    files += ["prompts.test_file=test.txt", f"model={model(tmp_path / 'model')}"]

    def planned(rubric):
        sets = [part for value in (*files, f"rubric.path={rubric}") for part in ("--set", value)]
        return CliRunner().invoke(app, ["rl", "shapes", "--dry-run", "--json", *sets])

    done = planned("free.yaml")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["criteria_per_image"] == 1.0
    refused = planned("shapes")
    assert refused.exit_code == 1
    assert "the prompt has no fact colour: give it one, or let the criterion wait" in refused.stderr
