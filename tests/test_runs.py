"""A run folder is whole after every accident, and has one owner."""

import json
import multiprocessing
import os
import resource
import signal

import pytest

from lens_core.runs import RunFolder, RunProblem, whole_folder, write_whole


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "checkpoint"
    with whole_folder(target) as draft:
        (draft / "a").write_text("old")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), whole_folder(target) as draft:
        (draft / "a").write_text("new")
        _ = 1 / 0
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_second_owner_is_refused_and_told_who(tmp_path):
    with RunFolder(tmp_path / "run"), pytest.raises(RunProblem, match=f"in use by process {os.getpid()}"):
        RunFolder(tmp_path / "run").__enter__()
    with RunFolder(tmp_path / "run"):
        pass


def test_a_folder_of_another_recipe_is_refused_field_by_field(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.keep_config("steps: 3\nnft: {clip: 5.0}\n")
        folder.keep_config("nft: {clip: 5.0}\nsteps: 3\n")
        with pytest.raises(RunProblem, match=r"nft.clip: 5.0 there, 4.0 here"):
            folder.keep_config("steps: 3\nnft: {clip: 4.0}\n")


def test_metrics_forget_what_the_checkpoint_has_not_seen(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        for step in range(4):
            folder.log({"step": step})
        with folder.metrics_file.open("a") as file:
            file.write('{"step": 4, "rew')  # a line cut short by a kill
        assert [row["step"] for row in folder.metrics()] == [0, 1, 2, 3]
        folder.forget_after(2)
        assert [json.loads(line)["step"] for line in folder.metrics_file.read_text().splitlines()] == [0, 1, 2]


def test_checkpoints_are_listed_and_pruned(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        for step in (20, 0, 10):
            with whole_folder(folder.checkpoint(step)) as draft:
                (draft / "x").write_text("x")
        (folder.checkpoint_folder / ".step-000030.draft").mkdir()
        assert folder.checkpoints() == [0, 10, 20]
        folder.prune({0, 20})
        assert folder.checkpoints() == [0, 20]


def _overfill(folder: str) -> None:
    """Write past a file size limit: the kernel refuses as it does on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    from pathlib import Path

    try:
        with whole_folder(Path(folder) / "checkpoint") as draft:
            (draft / "weights").write_bytes(b"x" * 100_000)
    except RunProblem as problem:
        assert "What was saved before is intact" in str(problem)
        raise SystemExit(7) from problem


def test_a_disk_that_refuses_keeps_the_checkpoint_before(tmp_path):
    with whole_folder(tmp_path / "checkpoint") as draft:
        (draft / "weights").write_text("good")
    process = multiprocessing.get_context("spawn").Process(target=_overfill, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == 7
    assert (tmp_path / "checkpoint" / "weights").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_path_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunProblem, match="cannot write"):
        write_whole(tmp_path / "file" / "summary.json", "{}")
    with pytest.raises(RunProblem, match="cannot write"):
        RunFolder(tmp_path / "file" / "run").__enter__()
