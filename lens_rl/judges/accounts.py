"""What the judges of a run did and cost, from its verdict stores alone: per step, per kind of criterion, and in all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas

from lens_core.runs import RunProblem
from lens_rl.judges.store import VerdictStore

TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

_VERDICTS = """
SELECT judge_id, step, kind, status, count(*) AS verdicts, total(value) AS yes
FROM verdicts GROUP BY judge_id, step, kind, status
"""
_REQUESTS = f"""
SELECT judge_id, step, status, count(*) AS requests, total(cost IS NULL) AS unpriced,
    {", ".join(f"total({name}) AS {name}" for name in ("tries", "throttled", "unreported", *TOKENS, "cost"))}
FROM requests GROUP BY judge_id, step, status
"""
_LATENCIES = "SELECT judge_id, step, latency FROM requests WHERE status NOT IN ('open', 'lost')"
# A judge that is free has no requests in the ledger; the verdicts of one request share its latency.
_FREE_LATENCIES = """
SELECT judge_id, step, max(latency) AS latency FROM verdicts
WHERE judge_id NOT IN (SELECT judge_id FROM requests) GROUP BY judge_id, image_sha
"""


def stores_of(run: Path) -> list[Path]:
    """The verdict stores of a run folder, or the one file that is given. Raises RunProblem where there is none."""
    found = [run] if run.is_file() else sorted(run.glob("verdicts-rank*.sqlite"))
    if not found:
        raise RunProblem(f"{run} holds no verdict store (verdicts-rank0.sqlite): name a run folder, or such a file")
    return found


def accounts(stores: Sequence[Path]) -> list[dict[str, Any]]:
    """One entry a judge: its name, what it did `in_all`, and the same by `kinds` of criterion and by `steps`.

    `step` is None for what was judged outside of all steps, such as the closing test. `cost_usd` is None where a price
    is unknown. Kinds have no requests of their own, since a request may ask about several.
    """
    verdicts, requests = _read(stores, _VERDICTS), _read(stores, _REQUESTS)
    latencies = pandas.concat([_read(stores, _LATENCIES), _read(stores, _FREE_LATENCIES)], ignore_index=True)
    judges = sorted({*verdicts["judge_id"], *requests["judge_id"]})
    return [
        _account(judge, *(frame[frame["judge_id"] == judge] for frame in (verdicts, requests, latencies)))
        for judge in judges
    ]


def _account(judge: str, verdicts: Any, requests: Any, latencies: Any) -> dict[str, Any]:
    steps = sorted({*verdicts["step"].dropna(), *requests["step"].dropna()})
    outside = verdicts["step"].isna().any() or requests["step"].isna().any()

    def of_step(frame: Any, step: float | None) -> Any:
        return frame[frame["step"].isna()] if step is None else frame[frame["step"] == step]

    return {
        "judge": judge,
        "in_all": _verdicts(verdicts) | _requests(requests) | _latency(latencies),
        "kinds": [{"kind": kind} | _verdicts(some) for kind, some in verdicts.groupby("kind")],
        "steps": [
            {"step": None if step is None else int(step)}
            | _verdicts(of_step(verdicts, step))
            | _requests(of_step(requests, step))
            | _latency(of_step(latencies, step))
            for step in [*steps, *([None] if outside else [])]
        ],
    }


def _verdicts(frame: Any) -> dict[str, Any]:
    valid = frame[frame["status"] == "ok"]
    count = int(valid["verdicts"].sum())
    return {
        "verdicts": int(frame["verdicts"].sum()),
        "yes_share": float(valid["yes"].sum()) / count if count else None,
        "errors": _counts(frame[frame["status"] != "ok"], "verdicts"),
    }


def _requests(frame: Any) -> dict[str, Any]:
    return {
        "requests": _counts(frame, "requests"),
        "tries": int(frame["tries"].sum()),
        "throttled_tries": int(frame["throttled"].sum()),
        "unreported_tries": int(frame["unreported"].sum()),
        **{name: int(frame[name].sum()) for name in TOKENS},
        "cost_usd": None if frame["unpriced"].sum() else float(frame["cost"].sum()),
    }


def _latency(frame: Any) -> dict[str, Any]:
    seconds = frame["latency"]
    found = {name: float(seconds.quantile(share)) if len(seconds) else None for name, share in PERCENTILES.items()}
    return {"latency_seconds": found}


def _counts(frame: Any, column: str) -> dict[str, int]:
    """Sums by status."""
    return {status: int(number) for status, number in frame.groupby("status")[column].sum().items()}


def _read(stores: Sequence[Path], query: str) -> Any:
    """The rows of a SELECT in all the stores."""
    frames = []
    for path in stores:
        store = VerdictStore.read(path)
        try:
            frames.append(store.frame(query))
        finally:
            store.close()
    return pandas.concat(frames, ignore_index=True)
