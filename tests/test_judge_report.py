"""`lens-rl judge report`: its sums are those of the store, of the server, and of the run."""

import json

import pytest
from typer.testing import CliRunner

from lens_core.records import Verdict
from lens_rl.judges.accounts import accounts, stores_of
from lens_rl.judges.backend import Usage
from lens_rl.judges.store import Settled, VerdictStore
from pipelines.cli import app
from tests.fault_server import COMPLETION_TOKENS, PROMPT_TOKENS, running
from tests.judging import CRITERIA, KINDS, judge_all, ledger, pictures, section
from tests.test_store import asked


def report(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["judge", "report", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_report_adds_up_to_what_the_server_counted(tmp_path):
    with running() as server:
        judge = section(server.url, request="per_image", max_error_share=1.0)
        judge_all(judge, tmp_path / "verdicts-rank0.sqlite", pictures(4), step=1)
        server.behave(rate=1.0, kinds=["refusal"])
        judge_all(judge, tmp_path / "verdicts-rank0.sqlite", pictures(6), step=2)
        seen = server.seen()
    (account,) = json.loads(report(str(tmp_path), "--json"))
    whole, (first, second) = account["in_all"], account["steps"]
    assert whole["requests"] == {"ok": 4, "refusal": 6}
    assert whole["tries"] == seen.requests == 10 and whole["unreported_tries"] == 0
    assert (whole["input_tokens"], whole["output_tokens"]) == (10 * PROMPT_TOKENS, 10 * COMPLETION_TOKENS)
    assert whole["cost_usd"] == pytest.approx(10 * (PROMPT_TOKENS * 10 + COMPLETION_TOKENS * 40) / 1e6)
    assert whole["errors"] == {"refusal": 2 * CRITERIA} and whole["verdicts"] == 6 * CRITERIA
    assert (first["step"], first["verdicts"], first["errors"]) == (1, 4 * CRITERIA, {})
    assert (second["step"], second["verdicts"], second["errors"]) == (2, 2 * CRITERIA, {"refusal": 2 * CRITERIA})
    assert second["yes_share"] is None and first["yes_share"] == whole["yes_share"]
    for name in ("tries", "input_tokens", "output_tokens", "cost_usd", "verdicts"):
        assert first[name] + second[name] == pytest.approx(whole[name])
    assert {row["kind"]: row["verdicts"] for row in account["kinds"]} == {
        kind: 6 * len(range(number, CRITERIA, 3)) for number, kind in enumerate(KINDS)
    }
    assert whole["latency_seconds"]["p50"] > 0


def test_percentiles_are_those_of_the_requests(tmp_path):
    store = VerdictStore(tmp_path / "v.sqlite")
    for latency in range(1, 101):
        row = store.open_request("judge", step=None, questions=1, tries=6, cost=None)
        store.settle(Settled(row, "ok", Usage(1), float(latency), None))
    store.open_request("judge", step=None, questions=1, tries=6, cost=None)
    store.close()
    (account,) = accounts([tmp_path / "v.sqlite"])
    assert account["in_all"]["latency_seconds"] == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01})
    assert account["in_all"]["cost_usd"] is None and account["in_all"]["requests"] == {"ok": 100, "open": 1}
    assert [row["step"] for row in account["steps"]] == [None]
    assert "cost" in (text := report(str(tmp_path / "v.sqlite"))) and "unknown" in text


def test_a_free_judge_has_verdicts_and_latencies_but_no_requests(tmp_path):
    for rank in range(2):
        store = VerdictStore(tmp_path / f"verdicts-rank{rank}.sqlite")
        for number in range(3):
            verdict = Verdict(f"c{number}", f"image{rank}", "free", number % 2, latency=0.25)
            store.add("p", [(asked(number), verdict)], step=7)
        store.close()
    (account,) = accounts(stores_of(tmp_path))
    assert account["in_all"]["verdicts"] == 6 and account["in_all"]["yes_share"] == pytest.approx(1 / 3)
    assert account["in_all"]["requests"] == {} and account["in_all"]["cost_usd"] == 0.0
    assert account["in_all"]["latency_seconds"]["p95"] == 0.25
    text = report(str(tmp_path))
    assert "free" in text and "$0.00" in text and "tries sent" not in text


def test_a_folder_without_a_store_is_named(tmp_path):
    result = CliRunner().invoke(app, ["judge", "report", str(tmp_path)])
    assert result.exit_code == 1 and "holds no verdict store" in result.output
    VerdictStore(tmp_path / "verdicts-rank0.sqlite").close()
    assert "Nothing has been judged yet." in report(str(tmp_path))
    assert ledger(tmp_path / "verdicts-rank0.sqlite")["rows"] == 0
