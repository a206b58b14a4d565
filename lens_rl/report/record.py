"""A run folder as its report reads it: whole or cut off, still at work or long ago, never touched."""

import fcntl
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas
import yaml

from lens_core.recipes import nearest
from lens_core.runs import RunFolder, RunProblem
from lens_rl.guards import best_step
from lens_rl.samples import Transcript, folder_of_test, folder_of_validation, read_transcripts

PHASES = ("rollout", "judge", "train", "evaluate")
_NOT_KINDS = {"reward", "diversity", "images", "verdicts", "errors"}
_SIGNED_IN = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds. `summary` is None until the run has ended by itself."""

    path: Path
    config: str
    """The resolved recipe, YAML."""
    rows: list[dict[str, Any]]
    """The metrics, a row a step, step 0 first."""
    summary: dict[str, Any] | None
    at_work: bool
    """Whether a process holds the folder now."""

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def steps(self) -> int:
        """Steps made so far."""
        return self.rows[-1]["step"]

    @property
    def state(self) -> str:
        """finished, at work, or how it ended or stands: in words."""
        if self.summary:
            return self.summary["ended"]
        planned = self.settings.get("steps", self.steps)
        return f"{'at work' if self.at_work else 'stopped'}, step {self.steps} of {planned}"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe's fields under dotted names: `optimizer.lr`."""
        return pandas.json_normalize(yaml.safe_load(self.config)).to_dict("records")[0]

    @cached_property
    def validations(self) -> list[dict[str, Any]]:
        """The rows of the steps at which validation prompts were scored."""
        return [row for row in self.rows if "validation/reward" in row]

    @cached_property
    def best_step(self) -> int:
        return best_step(self.rows)

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of criteria of the validation prompts."""
        names = {name.removeprefix("validation/") for row in self.validations for name in row if "validation/" in name}
        return sorted(names - _NOT_KINDS)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds of each phase so far; of `test`, once the run has ended."""
        spent = {phase: self.total(f"seconds/{phase}") for phase in PHASES}
        if self.summary:
            spent["test"] = max(0.0, self.summary["wall_seconds"] - sum(spent.values()))
        return spent

    @cached_property
    def minutes(self) -> dict[int, float]:
        """Minutes at work until the end of each step."""
        spent, found = 0.0, {}
        for row in self.rows:
            spent += sum(row.get(f"seconds/{phase}", 0.0) for phase in PHASES) / 60
            found[row["step"]] = spent
        return found

    def total(self, *names: str) -> float:
        """The sum of some metrics over the run."""
        return sum((row.get(name, 0.0) for row in self.rows for name in names), start=0.0)

    def validation(self, step: int) -> list[Transcript]:
        """What was kept of the validation after `step`."""
        return read_transcripts(folder_of_validation(self.path, step))

    def test(self, side: str) -> list[Transcript]:
        """What was kept of the closing test; `side` is "base" or "trained"."""
        return read_transcripts(folder_of_test(self.path, side)) if self.summary else []


def read_run(path: Path) -> RunRecord:
    """Read a run folder. Raises RunProblem where it is none, or where nothing has been logged yet."""
    file = path / "config.yaml"
    if not file.is_file():
        if path.is_dir():
            raise RunProblem(f"{path} is no run folder: it has no config.yaml")
        beside = [other.name for other in path.parent.glob("*/") if (other / "config.yaml").is_file()]
        raise RunProblem(f"there is no run folder {path}{nearest(path.name, beside)}")
    rows = RunFolder(path).metrics()
    if not any("validation/reward" in row for row in rows):
        raise RunProblem(f"{path} has nothing to report yet: its first validation is still to come")
    summary = path / "summary.json"
    return RunRecord(
        path=path,
        # Whoever writes a password into an address should not find it in a page that is passed on.
        config=_SIGNED_IN.sub("***@", file.read_text(encoding="utf-8")),
        rows=rows,
        summary=_summary(summary) if summary.is_file() else None,
        at_work=_at_work(path),
    )


def _summary(file: Path) -> dict[str, Any]:
    summary = json.loads(file.read_text(encoding="utf-8"))
    try:
        _ = [summary["ended"], summary["wall_seconds"], summary["diversity"], summary["held_out"]["gain_interval"]]
        _ = [found["gain_interval"] for found in summary["held_out"]["by_kind"].values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise RunProblem(f"{file} was not written by this version of lens-rl: it lacks {error}") from error
    return summary


def _at_work(path: Path) -> bool:
    lock = path / ".lock"
    if not lock.is_file():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
