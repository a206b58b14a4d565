"""The verdict store: what went in comes out, and a file that cannot be used says why and what to do."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion, Verdict
from lens_core.runs import RunProblem
from lens_rl.judges.backend import Question, Usage
from lens_rl.judges.replay import ReplayBackend
from lens_rl.judges.store import SCHEMA_VERSION, Asked, Settled, VerdictStore, image_sha, question_sha
from lens_rl.recipe import Judge
from tests.fault_server import running
from tests.judging import PROMPT, judge_all, pictures, section

FIRST_SCHEMA = """
CREATE TABLE verdicts (
    image_sha TEXT NOT NULL, judge_id TEXT NOT NULL, question_sha TEXT NOT NULL,
    prompt_id TEXT NOT NULL, criterion TEXT NOT NULL, kind TEXT NOT NULL,
    value INTEGER, status TEXT NOT NULL, p REAL, mass REAL,
    latency REAL NOT NULL, tokens INTEGER NOT NULL, cost REAL,
    PRIMARY KEY (image_sha, judge_id, question_sha)
) WITHOUT ROWID
"""


def asked(number: int) -> Asked:
    return Asked.of(Question(Criterion(f"c{number}", "It holds.", "k"), "system", f"user {number}"))


def verdict(number: int, value: int | None = 1, **changes) -> Verdict:
    status = "ok" if value is not None else "timeout"
    return Verdict(f"c{number}", "image", "judge", value, status=status, **{"p": 0.75, "tokens": 3} | changes)


def test_what_went_in_comes_out_and_errors_are_asked_again(tmp_path):
    store = VerdictStore(tmp_path / "v.sqlite")
    store.add("p", [(asked(1), verdict(1, 0, cost=0.5)), (asked(2), verdict(2, None))], step=4)
    found = store.find("image", "judge", [asked(2), asked(1), asked(3)])
    assert found == [None, verdict(1, 0, cost=0.5), None] and found[1].cached
    assert store.find("image", "another judge", [asked(1)]) == [None]
    store.add("p", [(asked(2), verdict(2, 1))], step=5)
    assert store.find("image", "judge", [asked(2)]) == [verdict(2, 1)]
    assert store.rows("SELECT criterion, step FROM verdicts ORDER BY 1") == [("c1", 4), ("c2", 5)]
    store.close()


def test_two_judges_write_one_file_and_a_third_reads_it(tmp_path):
    stores = [VerdictStore(tmp_path / "v.sqlite") for _ in range(2)]
    for number, store in enumerate(stores * 3):
        store.add("p", [(asked(number), verdict(number))])
    reader = VerdictStore.read(tmp_path / "v.sqlite")
    assert reader.rows("SELECT count(*) FROM verdicts") == [(6,)]
    with pytest.raises(RunProblem, match="readonly"):
        reader.add("p", [(asked(9), verdict(9))])
    for store in (*stores, reader):
        store.close()


def test_pixels_size_and_question_are_the_key():
    wide, high = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    other = wide.copy()
    other[0, 0, 0] = 1
    assert len({image_sha(image) for image in (wide, high, other)}) == 3
    assert image_sha(high.transpose(1, 0, 2)) == image_sha(wide)
    with_check = Question(Criterion("c1", "It holds.", "k", {"kind": "count"}), "system", "user 1")
    shas = {question_sha(question) for question in (asked(1).question, asked(2).question, with_check)}
    assert len(shas) == 3


def test_verdicts_and_what_their_request_took_are_written_together_or_not_at_all(tmp_path):
    store = VerdictStore(tmp_path / "v.sqlite")
    row = store.open_request("judge", step=1, questions=1, tries=6, cost=9.0)
    settled = Settled(row, "ok", Usage(2, 90, 10, 5, 3, 1, 1), 0.5, 1.5)
    with pytest.raises(RunProblem):
        store.add("p", [(asked(1), verdict(1, tokens=None))], settled=settled)
    assert store.rows("SELECT status, cost FROM requests") == [("open", 9.0)]
    store.add("p", [(asked(1), verdict(1))], settled=settled)
    assert store.rows("SELECT * FROM requests") == [(row, "judge", 1, 1, "ok", 0.5, 1.5, 2, 90, 10, 5, 3, 1, 1)]
    store.close()


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "v.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        old.execute(FIRST_SCHEMA)
        old.execute(
            "INSERT INTO verdicts VALUES ('image', 'judge', ?, 'p', 'c1', 'k', 1, 'ok', 0.75, NULL, 0.1, 3, 0.0)",
            (asked(1).sha,),
        )
        old.execute("PRAGMA user_version=1")
    with pytest.raises(RunProblem, match="start its run's command once more"):
        VerdictStore.read(path)
    store = VerdictStore(path)
    assert store.find("image", "judge", [asked(1)]) == [verdict(1)] and store.cost() == 0.0
    store.close()
    VerdictStore.read(path).close()


def test_a_file_that_is_no_store_says_what_to_do(tmp_path):
    newer = tmp_path / "newer.sqlite"
    VerdictStore(newer).close()
    with contextlib.closing(sqlite3.connect(newer)) as database:
        database.execute(f"PRAGMA user_version={SCHEMA_VERSION + 5}")
    with pytest.raises(RunProblem, match=rf"newer.sqlite has schema version {SCHEMA_VERSION + 5}; .* newer lens-rl"):
        VerdictStore(newer)
    text = tmp_path / "text.sqlite"
    text.write_text("verdicts, many of them\n" * 100)
    with pytest.raises(RunProblem, match=r"text\.sqlite cannot be used: file is not a database; move it away"):
        VerdictStore(text)
    with pytest.raises(RunProblem, match=r"cannot be used: unable to open .* that its folder exists"):
        VerdictStore(tmp_path / "nowhere" / "v.sqlite")
    with pytest.raises(RunProblem, match="there is no verdict store"):
        VerdictStore.read(tmp_path / "nowhere.sqlite")


def test_a_locked_store_names_the_other_process(tmp_path, monkeypatch):
    monkeypatch.setattr("lens_rl.judges.store.BUSY_SECONDS", 0.1)
    path = tmp_path / "v.sqlite"
    VerdictStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunProblem, match="database is locked; another process holds it"):
            VerdictStore(path)


@pytest.fixture
def powerless():
    """A folder of somebody else's: the tests may run as root, whom no permission stops."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    VerdictStore(folder / "v.sqlite").close()
    (folder / "v.sqlite").chmod(0o444)
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_store_that_may_not_be_written_asks_for_permission(powerless):
    with pytest.raises(RunProblem, match="readonly database; give yourself write permission"):
        VerdictStore(powerless / "v.sqlite")


def test_replay_answers_what_was_judged_and_nothing_else(tmp_path):
    shown = pictures(3)
    with running() as server:
        right = judge_all(section(server.url, request="per_image"), tmp_path / "v.sqlite", shown[:2])
    replay = Judge(backend="replay", answers_from=str(tmp_path / "v.sqlite"), max_error_share=1.0)
    again = judge_all(replay, tmp_path / "w.sqlite", shown)
    for once, twice in zip(right, again[:2], strict=True):
        assert [v.value for v in once] == [v.value for v in twice]
    assert [v.status for v in again[2]] == ["error"] * len(PROMPT.criteria)
    assert all(v.cost == 0.0 for verdicts in again for v in verdicts)


def test_replay_of_several_judges_wants_a_name(tmp_path):
    path = tmp_path / "v.sqlite"
    with pytest.raises(RecipeProblem, match=r"judge\.answers_from is missing"):
        ReplayBackend(None, None)
    store = VerdictStore(path)
    with pytest.raises(RecipeProblem, match="holds no verdicts"):
        ReplayBackend(str(path), None)
    store.add("p", [(asked(1), verdict(1)), (asked(1), Verdict("c1", "image", "other", 0))])
    store.close()
    with pytest.raises(RecipeProblem, match=r"judge\.model: .* several judges; there are: judge, other"):
        ReplayBackend(str(path), None)
    with pytest.raises(RecipeProblem, match=r"no 'othr' .did you mean 'other'"):
        ReplayBackend(str(path), "othr")
