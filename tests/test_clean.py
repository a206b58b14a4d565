"""`lens-rl data clean` on real photographs with planted faults: what each step finds, and that nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.data import clean as job
from pipelines.data.cleaning import scoring
from tests.browser import CHROMIUM, Browser
from tests.labelled_pictures import planted, write
from tests.test_report import faults

CPU_STEPS = ("corrupt", "area", "sharpness", "entropy", "luminance")


def run(source, out, *overrides, column=None):
    found = job.clean(str(source), out, job.load(None, list(overrides)), column=column)
    return found, pd.read_parquet(out / "manifest.parquet").set_index("key")


def noise(seed, size=(64, 64)):
    """A small image that passes every step but the one of area."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


SMALL = "thresholds.min_area=0"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Both halves, written, cleaned with the default thresholds, and joined with what was planted."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = {}
    for half in "ab":
        pictures = planted(half)
        write(folder / half, pictures)
        _, manifest = run(folder / half, folder / f"out-{half}")
        truth = pd.DataFrame([(one.name, one.label, one.twin) for one in pictures])
        truth.columns = ["key", "label", "twin"]
        rows[half] = manifest.join(truth.set_index("key"))
        assert len(rows[half]) == len(pictures)
    return folder, rows


def best_limit(values, faulty):
    """The limit below which lie the faulty values and no others: the middle of where the F1 score is greatest."""
    edges = np.sort(values)
    limits = (edges[1:] + edges[:-1]) / 2
    right = np.array([(values[faulty] < limit).sum() for limit in limits])
    score = 2 * right / (np.array([(values < limit).sum() for limit in limits]) + faulty.sum())
    best = np.flatnonzero(score == score.max())
    return float((edges[best[0]] + edges[best[-1] + 1]) / 2)


def chosen(rows):
    """Thresholds as `--set` values, from the labels of one half."""
    readable = rows[rows.dropped_by != "corrupt"]
    labels = readable.label
    clear = readable[labels.isin(("clean", "near-duplicate", "area"))]

    def limit(column, faulty, sign=1.0):
        rows = pd.concat([clear, faulty])
        values = sign * rows[column].to_numpy(np.float64)
        return sign * best_limit(values, np.arange(len(rows)) >= len(clear))

    lit = readable[labels == "luminance"]
    return {
        "sharpness": limit("sharpness", readable[labels == "sharpness"]),
        "entropy": limit("entropy", readable[labels == "entropy"]),
        "underexposed": limit("brightest", lit[lit.luminance < 0.5]),
        "overexposed": limit("darkest", lit[lit.luminance > 0.5], sign=-1.0),
    }


@pytest.mark.parametrize("one, other", ["ab", "ba"])
def test_each_step_finds_what_was_planted(labelled, one, other, tmp_path):
    """Thresholds from one half, figures from the other, whose pictures are of other photographs.

    A step is judged by what the funnel drops under its name.
    """
    folder, rows = labelled
    limits = chosen(rows[one])
    given = (f"thresholds.{name}={limit}" for name, limit in limits.items())
    shutil.copytree(folder / f"out-{other}", tmp_path / "out")  # Scores are kept, decisions are taken again.
    _, judged = run(folder / other, tmp_path / "out", *given)
    judged = judged.join(rows[other].label)
    print(f"\nlimits from half {one}:", {name: round(limit, 3) for name, limit in limits.items()})
    for name in CPU_STEPS:
        faulty, fell = judged.label.replace("truncated", "corrupt") == name, judged.dropped_by == name
        precision, recall = (fell & faulty).sum() / fell.sum(), (fell & faulty).sum() / faulty.sum()
        print(f"{name:10} planted {faulty.sum():3}  precision {precision:.3f}  recall {recall:.3f}")
        assert precision >= 0.95 and recall >= 0.95, name


def test_every_truncated_jpeg_is_caught(labelled):
    _, rows = labelled
    cut = pd.concat(rows.values()).query("label == 'truncated'")
    assert len(cut) == 30 and (cut.dropped_by == "corrupt").all() and (cut.reason == "truncated").all()


def test_planted_near_duplicates_are_found_by_their_hash(labelled):
    """One of each pair goes, never both, and no clean picture goes with them."""
    _, rows = labelled
    for half, manifest in rows.items():
        twins = manifest[manifest.label == "near-duplicate"]
        both = twins.assign(twin_drop=manifest.loc[twins.twin].dropped_by.to_numpy())
        reached = both[both.dropped_by.isin(("", "near-duplicate")) & both.twin_drop.isin(("", "near-duplicate"))]
        found = (reached.dropped_by == "near-duplicate") ^ (reached.twin_drop == "near-duplicate")
        dropped = manifest[manifest.dropped_by == "near-duplicate"]
        involved = {*twins.index, *twins.twin}
        false = [key for key in dropped.index if key not in involved]
        print(f"half {half}: {found.sum()} of {len(reached)} found, {len(false)} false of {len(dropped)}")
        assert len(reached) >= 50
        assert found.mean() >= 0.99
        assert len(false) <= 0.05 * len(dropped)


def test_the_shipped_thresholds_keep_what_is_clean(labelled):
    _, rows = labelled
    both = pd.concat(rows.values())
    fell = both[(both.label == "clean") & ~both.dropped_by.isin(("", "near-duplicate"))]
    assert len(fell) <= 0.02 * (both.label == "clean").sum(), fell.reason.to_string()


def test_thresholds_change_without_an_image(labelled, tmp_path):
    """The images are gone, and the same scores give other decisions."""
    folder, rows = labelled
    shutil.copytree(folder / "a", tmp_path / "a")
    _, before = run(tmp_path / "a", tmp_path / "out")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    _, after = run(tmp_path / "a", tmp_path / "out", "thresholds.sharpness=0.2", "thresholds.hash_bits=0")
    scores = ["sharpness", "entropy", "luminance", "darkest", "brightest", "height", "hash"]
    assert before[scores].equals(after[scores])
    assert (after.dropped_by == "sharpness").sum() > (before.dropped_by == "sharpness").sum() + 20
    assert before.dropped_by.equals(rows["a"].dropped_by)


def test_a_step_without_its_model_is_not_run_and_says_so(labelled):
    folder, _ = labelled
    found = json.loads((folder / "out-a" / "funnel.json").read_text())
    by_step = {step["step"]: step for step in found["steps"]}
    for name in ("nsfw", "aesthetics", "watermark"):
        assert by_step[name]["state"] == "not run" and by_step[name]["dropped"] == 0
    assert "perceptual hash" in by_step["near-duplicate"]["how"]
    page = (folder / "out-a" / "report.html").read_text()
    assert "Not run, for want of a model: nsfw, aesthetics, watermark" in page
    assert pd.read_parquet(folder / "out-a" / "manifest.parquet").nsfw.isna().all()


def test_the_funnel_adds_up(labelled):
    folder, rows = labelled
    found = json.loads((folder / "out-a" / "funnel.json").read_text())
    left = found["images"]
    for step in found["steps"]:
        assert step["entered"] == left
        left -= step["dropped"]
        assert step["left"] == left
    assert found["kept"] == left == rows["a"].kept.sum()


def test_tars_and_parquet_files_are_decided_as_their_images_are(labelled, tmp_path):
    folder, rows = labelled
    files = sorted((folder / "a").iterdir())[::3]
    expected = rows["a"].loc[[file.name for file in files]]
    for kind in ("tar", "bytes", "paths"):
        source = tmp_path / kind
        source.mkdir()
        if kind == "tar":
            with tarfile.open(source / "shard-000000.tar", "w") as tar:
                for file in files:
                    tar.add(file, file.name)
        elif kind == "bytes":
            cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
            pq.write_table(pa.table({"image": cells}), source / "train.parquet", row_group_size=50)
        else:
            pq.write_table(pa.table({"path": [str(file) for file in files]}), source / "train.parquet")
        _, found = run(source, tmp_path / f"out-{kind}")
        assert len(found) == len(files)
        assert (found.sha256.to_numpy() == expected.sha256.to_numpy()).all()
        decided = expected.dropped_by.isin(CPU_STEPS).to_numpy()
        assert (found.dropped_by.to_numpy() == expected.dropped_by.to_numpy())[decided].all()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_the_page_in_a_browser(labelled, tmp_path):
    """Whole at any width, light and dark, and names of files are text in it."""
    folder, _ = labelled
    (tmp_path / "in").mkdir()
    for number, name in enumerate(('"><img src=x onerror="document.title = 1">.png', "<b>{{ 7 * 7 }}.png", "o" * 180)):
        noise(number).save(tmp_path / "in" / f"{name.removesuffix('.png')}.png")
    (tmp_path / "in" / "<script>document.title = 'taken'<|script>.jpg").write_bytes(b"")
    run(tmp_path / "in", tmp_path / "out", SMALL)
    with Browser() as browser:
        for page in (folder / "out-a" / "report.html", tmp_path / "out" / "report.html"):
            for width, dark in ((390, True), (1440, False)):
                browser.open(page, width=width, dark=dark)
                assert not faults(browser, width)
                assert browser.value("document.title").startswith("Cleaning")
                assert browser.value("document.images.length") > (20 if page.parent.name == "out-a" else 0)
                assert not browser.value("document.querySelectorAll('b > b, script').length")


def test_exact_copies_are_found_and_the_first_is_kept(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "cab":
        noise(0).save(tmp_path / "in" / f"{name}.png")
    noise(1).save(tmp_path / "in" / "other.png")
    _, found = run(tmp_path / "in", tmp_path / "out", SMALL)
    assert found.kept.to_dict() == {"a.png": True, "b.png": False, "c.png": False, "other.png": True}
    assert set(found.duplicate_of[["b.png", "c.png"]]) == {"a.png"} and found.copies["a.png"] == 3


def test_the_larger_of_two_sizes_is_kept(tmp_path):
    (tmp_path / "in").mkdir()
    smooth = noise(0, (12, 12)).resize((200, 200), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "in" / "a.png")
    smooth.resize((400, 400), Image.Resampling.BICUBIC).save(tmp_path / "in" / "b.png")
    _, found = run(tmp_path / "in", tmp_path / "out", SMALL, "thresholds.sharpness=0")
    assert found.dropped_by.to_dict() == {"a.png": "near-duplicate", "b.png": ""}


def test_names_in_any_script_and_their_order(tmp_path):
    names = ["图片/一.png", "صورة.png", "कुत्ता.png", "a b'c\"d.png", "émoji🙂.png", "-dash.png", "UPPER.PNG"]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(number).save(tmp_path / "in" / name, "PNG")
    found, manifest = run(tmp_path / "in", tmp_path / "out", SMALL)
    assert found["kept"] == len(names)
    assert set(manifest.index) == set(names)
    assert list(manifest.index) == sorted(names, key=str.encode)


def many(folder, count):
    folder.mkdir()
    for number in range(count):
        noise(number, (24, 24)).save(folder / f"{number:05d}.png", compress_level=0)


def command(source, out, *more):
    return [sys.executable, "-m", "pipelines", "data", "clean", str(source), "--out", str(out), "--set", SMALL, *more]


def test_kill_and_go_on(tmp_path):
    """Killed while it scores, the same command repeats no finished part and comes to the same bytes."""
    many(tmp_path / "in", 3100)
    subprocess.run(command(tmp_path / "in", tmp_path / "whole"), check=True, capture_output=True)
    parts = len(list((tmp_path / "whole" / "index").glob("*.parquet")))
    process = subprocess.Popen(
        command(tmp_path / "in", tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    scores = tmp_path / "killed" / "scores" / "pixels-1"
    while not list(scores.glob("part-*.parquet")):
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {file.name: file.stat().st_mtime_ns for file in scores.glob("part-*.parquet")}
    assert 0 < len(before) < parts
    assert not (tmp_path / "killed" / "manifest.parquet").exists()
    subprocess.run(command(tmp_path / "in", tmp_path / "killed"), check=True, capture_output=True)
    after = {file.name: file.stat().st_mtime_ns for file in scores.glob("part-*.parquet")}
    assert len(after) == parts and all(after[name] == at for name, at in before.items())
    same = [(tmp_path / run / "manifest.parquet").read_bytes() for run in ("whole", "killed")]
    assert same[0] == same[1]


@pytest.mark.slow
def test_a_local_ray_cluster_gives_the_same_bytes(labelled, tmp_path):
    pytest.importorskip("ray")
    folder, _ = labelled
    for engine in ("native", "ray"):
        done = subprocess.run(
            command(folder / "a", tmp_path / engine, "--engine", engine), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    native, ray = ((tmp_path / engine / "manifest.parquet").read_bytes() for engine in ("native", "ray"))
    assert native == ray


def test_two_runs_into_one_folder(tmp_path):
    from lens_core.runs import RunFolder

    many(tmp_path / "in", 3)
    with RunFolder(tmp_path / "out"):
        answer = CliRunner().invoke(app, command(tmp_path / "in", tmp_path / "out")[3:])
    assert answer.exit_code == 1 and f"in use by process {os.getpid()}" in answer.output


def test_another_source_into_the_folder_of_one(tmp_path):
    many(tmp_path / "in", 3)
    many(tmp_path / "else", 3)
    run(tmp_path / "in", tmp_path / "out", SMALL)
    answer = CliRunner().invoke(app, command(tmp_path / "else", tmp_path / "out")[3:])
    assert answer.exit_code == 1 and "source:" in answer.output and "another folder" in answer.output


def test_a_full_disk(tmp_path):
    """Stood in for by a limit on the size of files: the message says what to do, and afterwards it goes on."""
    many(tmp_path / "in", 2500)
    limited = ["bash", "-c", 'ulimit -f 48; exec "$@"', "bash", *command(tmp_path / "in", tmp_path / "out")]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "raise the file size limit" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").rglob("*.draft"))
    found, _ = run(tmp_path / "in", tmp_path / "out", SMALL)
    assert found["kept"] == 2500


@pytest.mark.parametrize(
    "words, message",
    [
        (["absent", "--out", "out"], "no such file or folder"),
        (["empty", "--out", "out"], "there is no image, tar or Parquet file in it, only 1 x .txt"),
        (["pictures", "--out", "pictures/out"], "choose a folder outside"),
        (["pictures", "--out", "out", "--set", "thresholds.sharpnes=1"], "did you mean 'sharpness'"),
        (["pictures", "--out", "out", "--set", "nsfw.model=absent"], "nsfw.model: there is no folder absent"),
        (["table.parquet", "--out", "out"], "which column holds the images? Give --column, one of: number"),
        (["table.parquet", "--out", "out", "--column", "numbr"], "did you mean 'number'"),
        (["https://example.com/pictures", "--out", "out"], "Parquet file with a column of URLs"),
        (["pictures", "--out", "out", "--engine", "spark"], "engine"),
    ],
)
def test_what_cannot_be_started_says_why(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    many(tmp_path / "pictures", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    pq.write_table(pa.table({"number": [1, 2]}), tmp_path / "table.parquet")
    answer = CliRunner().invoke(app, ["data", "clean", *words])
    assert answer.exit_code == 1
    assert message in answer.output
    assert "Traceback" not in answer.output


def test_scoring_is_quick_to_say_that_it_is_done(tmp_path):
    """A second run decodes nothing."""
    many(tmp_path / "in", 40)
    run(tmp_path / "in", tmp_path / "out", SMALL)

    def refuse(*_):
        raise AssertionError("an image was read again")

    original, scoring.read_all = scoring.read_all, refuse
    try:
        run(tmp_path / "in", tmp_path / "out", SMALL)
    finally:
        scoring.read_all = original
