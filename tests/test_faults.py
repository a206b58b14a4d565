"""An endpoint that fails in every way, a process that is killed: nothing false, nothing lost, nothing uncounted."""

import random
import subprocess
import sys
import time
from collections import Counter

import pytest

from lens_rl.judges.backend import JudgeProblem
from tests.fault_server import FAULTS, Running, running
from tests.judging import CRITERIA, judge_all, ledger, pictures, section, server_keys, stored

UNTOLD = ("drop", "stall", "cut", "empty", "error object")
"""Faults after which nobody knows what the request cost."""
COMMON = {"timeout_seconds": 2.0, "concurrency": 64, "max_error_share": 1.0}


def values(judged):
    return [[verdict.value for verdict in verdicts] for verdicts in judged]


def errors(judged):
    return [verdict for verdicts in judged for verdict in verdicts if verdict.value is None]


@pytest.fixture(scope="module")
def server():
    with running() as served:
        yield served


def through_faults(server: Running, tmp_path, images: int, request: str):
    """Judge with and without faults; all that must hold between the two, and the share of errors."""
    judge, shown = section(server.url, request=request, **COMMON), pictures(images)
    server.behave(rate=0.0)
    right = judge_all(judge, tmp_path / "right.sqlite", shown)
    assert not errors(right) and 0 < sum(map(sum, values(right))) < images * CRITERIA

    before = server.seen()
    server.behave(rate=0.3, seed=images)
    judged = judge_all(judge, tmp_path / "faulty.sqlite", shown)
    after = server.seen()
    for faulty, fine in zip(judged, right, strict=True):
        assert all(a.value == b.value for a, b in zip(faulty, fine, strict=True) if a.value is not None)

    counted = ledger(tmp_path / "faulty.sqlite")
    assert counted["tries"] == after.requests - before.requests
    assert counted["tokens"] == after.tokens - before.tokens
    met = Counter(after.faults) - Counter(before.faults)
    assert counted["unreported"] == sum(met[kind] for kind in UNTOLD) and counted["lost"] == 0

    server.behave(rate=0.0)
    again = judge_all(judge, tmp_path / "faulty.sqlite", shown)
    assert values(again) == values(right)
    asked = len(server.seen().asked) - len(after.asked)
    assert asked == len(errors(judged)), "what was stored is asked again"
    return len(errors(judged)) / (images * CRITERIA), set(met)


def test_a_third_of_all_requests_failing_changes_no_verdict(server, tmp_path):
    share, _ = through_faults(server, tmp_path, 40, "per_criterion")
    assert share < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("request_shape, images", [("per_criterion", 500), ("per_image", 500)])
def test_five_thousand_verdicts_through_all_faults(server, tmp_path, request_shape, images):
    share, met = through_faults(server, tmp_path, images, request_shape)
    assert met == set(FAULTS)
    assert share <= 0.01


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind not in ("429", "stall")])
def test_no_fault_is_ever_a_verdict(server, tmp_path, monkeypatch, kind):
    """An endpoint that does nothing else: each verdict is an error, of whichever kind."""
    monkeypatch.setattr("lens_rl.judges.client.TRANSPORT_RETRIES", 1)
    server.behave(rate=1.0, kinds=[kind])
    judged = judge_all(section(server.url, request="per_image", **COMMON), tmp_path / "v.sqlite", pictures(1))
    assert len(errors(judged)) == CRITERIA
    status = {"refusal": "refusal"} | dict.fromkeys(("cut", "prose", "wrong names", "empty", "error object"), "invalid")
    assert {verdict.status for verdict in errors(judged)} == {status.get(kind, "error")}


def test_a_stall_is_a_timeout_charged_at_its_worst(server, tmp_path, monkeypatch):
    monkeypatch.setattr("lens_rl.judges.client.TRANSPORT_RETRIES", 1)
    server.behave(rate=1.0, kinds=["stall"], stall=1.0)
    judge = section(server.url, request="per_image", **COMMON | {"timeout_seconds": 0.2})
    judged = judge_all(judge, tmp_path / "v.sqlite", pictures(1))
    assert {verdict.status for verdict in errors(judged)} == {"timeout"}
    counted = ledger(tmp_path / "v.sqlite")
    assert counted["unreported"] == counted["tries"] == 2 and counted["tokens"] == 0
    worst = 2 * 10e-6 * 4096  # two tries, the picture's tokens alone
    assert counted["cost"] > worst


def test_a_judge_that_is_down_pauses_the_work_and_the_same_command_goes_on(server, tmp_path):
    judge, shown = section(server.url, request="per_image", **COMMON | {"max_error_share": 0.2}), pictures(10)
    server.behave(rate=0.0)
    first = judge_all(judge, tmp_path / "v.sqlite", shown[:4])
    server.behave(rate=1.0, kinds=["prose", "refusal"])
    with pytest.raises(JudgeProblem) as problem:
        judge_all(judge, tmp_path / "v.sqlite", shown)
    for part in (
        " of the 100 verdicts of the test are errors so far",
        " invalid",
        " refusal",
        "judge.max_error_share 0.2",
    ):
        assert part in str(problem.value)
    server.behave(rate=0.0)
    before = len(server.seen().asked)
    whole = judge_all(judge, tmp_path / "v.sqlite", shown)
    assert not errors(whole) and values(whole[:4]) == values(first)
    assert len(server.seen().asked) - before == 6 * CRITERIA


def killed_while_judging(server: Running, tmp_path, *, kills: int, images: int):
    """A process judges and is killed at random moments; what the server and the store know of each other."""
    server.behave(latency=0.02)
    path, dice = tmp_path / "v.sqlite", random.Random(images)
    keys = server_keys(section(server.url, request="per_criterion"), pictures(images))
    arguments = [sys.executable, "-m", "tests.judging", str(path), server.url, str(images)]
    arguments.append('{"request": "per_criterion", "concurrency": 8}')
    killed, known, first = 0, set(), len(server.seen().asked)
    start = first
    while killed < kills:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "judging\n"
        time.sleep(dice.uniform(0.0, 1.0))
        killed += process.poll() is None
        process.kill()
        process.wait()
        asked = server.seen().asked
        assert not known & set(asked[start:]), "a stored verdict was asked again"
        start, known = len(asked), {keys[key] for key in stored(path)} if path.exists() else set()
        if len(known) == len(keys):
            break
    return path, keys, killed, server.seen().asked[first:]


def all_is_counted(server: Running, path, keys, asked, images):
    """Finish the work; what is asked twice was in flight at a kill, and is charged."""
    before = server.seen()
    judged = judge_all(section(server.url, request="per_criterion"), path, pictures(images))
    assert not errors(judged)
    later = server.seen().asked[len(before.asked) :]
    counted, times = ledger(path), Counter(asked + later)
    assert set(times) == set(keys.values())
    assert sum(number - 1 for number in times.values()) <= counted["lost"]
    assert counted["tries"] >= len(asked) + len(later)


def test_what_is_stored_survives_a_kill_and_is_not_asked_again(server, tmp_path):
    path, keys, killed, asked = killed_while_judging(server, tmp_path, kills=2, images=40)
    assert killed
    all_is_counted(server, path, keys, asked, 40)


@pytest.mark.slow
def test_twenty_kills(server, tmp_path):
    path, keys, killed, asked = killed_while_judging(server, tmp_path, kills=20, images=400)
    assert killed == 20
    all_is_counted(server, path, keys, asked, 400)
