"""A run whose judge is a vision-language model behind a socket: the recipe of the embedded world and three `--set`."""

import json
import sqlite3

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from tests.vlm_server import NAME, serving

SMALL = [
    "steps=2",
    "prompts.train=8",
    "prompts.validation=2",
    "prompts.test=2",
    "prompts.per_step=3",
    "rollout.images_per_prompt=3",
    "rollout.num_steps=2",
    "evaluation.num_steps=2",
    "evaluation.images_per_prompt=1",
    "evaluation.test_images_per_prompt=1",
]


@pytest.mark.parametrize(
    "backend, path", [("openai_chat", "/v1/chat/completions"), ("openai_decisions", "/v1/decisions")]
)
def test_the_embedded_run_against_a_local_vlm_server(tiny_vlm, tmp_path, backend, path):
    with serving(tiny_vlm) as served:
        swapped = [f"judge.backend={backend}", f"judge.base_url={served.url}", f"judge.model={NAME}"]
        overrides = [word for text in [*swapped, *SMALL] for word in ("--set", text)]
        command = ["rl", "--recipe", "shapes", "--runs", str(tmp_path), "--name", "run", *overrides]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        asked = len(served.bodies(path))
        again = CliRunner().invoke(app, command)
        assert again.exit_code == 0 and len(served.bodies(path)) == asked

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert summary["judge_errors"] == 0 and summary["verdicts"] > 100
    assert any(row.get("gradient_norm", 0) > 0 for row in rows), "no group taught anything"

    with sqlite3.connect(tmp_path / "run" / "verdicts-rank0.sqlite") as store:
        by_value = dict(store.execute("SELECT value, count(*) FROM verdicts GROUP BY value"))
        (counted,) = store.execute("SELECT sum(tries) FROM requests").fetchone()
    assert set(by_value) == {0, 1}
    assert counted == asked, "the ledger and the server count alike"
