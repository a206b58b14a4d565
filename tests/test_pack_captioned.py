"""`lens-rl data pack`: captioned pictures to shards, in their buckets, each once, and never half a shard."""

import json
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from base_model.buckets import TRAINING_BUCKETS
from base_model.pretraining.loader import read_samples
from lens_core.recipes import RecipeProblem
from lens_core.runs import RunProblem
from pipelines.cli import app
from pipelines.data.buckets import Buckets, fit_picture, fit_text, sizes_named
from pipelines.data.captioned import ROWS, Captioned, decode_whole, read_captioned, sha256
from pipelines.data.pack import MANIFEST, PACKING, Unpackable
from pipelines.data.pack_captioned import pack_captioned

SIZES = ((64, 64), (48, 80), (80, 48))


def write_set(folder, count=25, size=(70, 70), start=0):
    """Pictures of noise with captions that name their number; every fifth is of a bucket's own size."""
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(start, start + count):
        height, width = SIZES[number % 3] if number % 5 == 0 else (size[0] + number % 3 * 30, size[1])
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = folder / "pictures" / f"{number}.png"
        Image.fromarray(pixels).save(file)
        captions = {"dense": [f"picture number {number}"]}
        rows.append(Captioned(f"{number}.png", f"pictures/{number}.png", sha256(file.read_bytes()), captions))
    (folder / ROWS).write_text("".join(row.line() + "\n" for row in rows), encoding="utf-8")
    return folder


def pack(out, *sources, sizes=SIZES, validation=0.2, per_shard=8):
    return pack_captioned(list(sources), out, sizes=sizes, validation=validation, per_shard=per_shard)


def tars(out):
    return {file.name: file.read_bytes() for file in sorted(out.glob("*.tar"))}


def texts(out):
    return [one.captions["dense"][0] for split in ("train", "validation") for one in read_samples(out, split)]


def test_every_picture_is_packed_once_and_counted_in_its_bucket(tmp_path):
    manifest = pack(tmp_path / "out", write_set(tmp_path / "a"), write_set(tmp_path / "b", 10, start=20))
    assert sorted(texts(tmp_path / "out")) == sorted(f"picture number {number}" for number in range(30))
    sizes = [one.image.shape[:2] for split in ("train", "validation") for one in read_samples(tmp_path / "out", split)]
    assert manifest["buckets"] == {f"{h}x{w}": sizes.count((h, w)) for h, w in sorted(set(sizes))}
    assert set(sizes) <= set(SIZES) and manifest["samples"] == 30
    for shard in manifest["shards"]:
        assert sha256((tmp_path / "out" / shard["name"]).read_bytes()) == shard["sha256"]
    assert not (tmp_path / "out" / PACKING).exists()


def test_the_order_of_rows_and_sets_changes_no_byte(tmp_path):
    a, b = write_set(tmp_path / "a", 12), write_set(tmp_path / "b", 12, start=12)
    pack(tmp_path / "one", a, b)
    (a / ROWS).write_text("".join(reversed((a / ROWS).read_text().splitlines(keepends=True))))
    pack(tmp_path / "two", b, a)
    assert tars(tmp_path / "one") == tars(tmp_path / "two") and len(tars(tmp_path / "one")) >= 4


def test_a_picture_of_its_buckets_size_keeps_its_bytes(tmp_path):
    source = write_set(tmp_path / "a", 10)
    pack(tmp_path / "out", source)
    stored = {row.sha256 for row in read_captioned(source)}
    kept = 0
    for file in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(file) as tar:
            for member in tar.getmembers():
                kept += sha256(tar.extractfile(member).read()) in stored  # type: ignore[union-attr]
    assert kept == 2  # numbers 0 and 5


def test_held_out_pictures_stay_held_out_when_others_come(tmp_path):
    source = write_set(tmp_path / "a", 25)
    pack(tmp_path / "one", source)
    pack(tmp_path / "two", source, write_set(tmp_path / "b", 25, start=25))
    before, after = (
        {one.captions["dense"][0] for one in read_samples(tmp_path / name, "validation")} for name in ("one", "two")
    )
    assert before and before <= after
    pack(tmp_path / "few", write_set(tmp_path / "c", 2, start=60), validation=0.0001)
    assert len(list(read_samples(tmp_path / "few", "validation"))) == 1  # one at least


def test_pictures_that_are_no_use_are_counted_and_move_no_other(tmp_path):
    source = write_set(tmp_path / "a", 24)
    pack(tmp_path / "whole", source)
    (source / "pictures" / "3.png").unlink()
    (source / "pictures" / "4.png").write_bytes((source / "pictures" / "6.png").read_bytes())
    manifest = pack(tmp_path / "out", source)
    left_out = sorted(manifest["left_out"])
    assert len(left_out) == 2 and left_out[0].startswith("3.png: cannot be read: No such file")
    assert left_out[1] == "4.png: is not the picture that was captioned: its bytes have changed"
    assert len(set(tars(tmp_path / "whole").values()) ^ set(tars(tmp_path / "out").values())) <= 4


@pytest.mark.parametrize("stop", [1, 9, 20])
def test_stopped_it_goes_on_behind_the_last_whole_shard(tmp_path, monkeypatch, stop):
    from pipelines.data import pack_captioned as job

    source = write_set(tmp_path / "a")
    pack(tmp_path / "whole", source)
    made, members = [], job.Stored.members

    def counted(self):
        made.append(self.row.key)
        if len(made) == stop:
            raise KeyboardInterrupt
        return members(self)

    monkeypatch.setattr(job.Stored, "members", counted)
    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path / "out", source)
    assert not (tmp_path / "out" / MANIFEST).exists()
    finished = len(tars(tmp_path / "out"))
    made.clear()
    stop = 0
    pack(tmp_path / "out", source)
    assert tars(tmp_path / "out") == tars(tmp_path / "whole")
    assert len(made) == 25 - 8 * finished  # nothing of a finished shard is read again


@pytest.mark.slow
def test_killed_at_any_moment_no_half_shard_is_left(tmp_path):
    source = write_set(tmp_path / "a", 60, size=(900, 900))
    pack(tmp_path / "whole", source, per_shard=6)
    code = (
        "import sys; from pathlib import Path; from tests.test_pack_captioned import pack;"
        "pack(Path(sys.argv[2]), Path(sys.argv[1]), per_shard=6)"
    )
    out, kills = tmp_path / "out", 0
    while not (out / MANIFEST).exists():
        process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out)], stderr=subprocess.DEVNULL)
        have = len(tars(out)) if out.exists() else 0
        while process.poll() is None and (len(tars(out)) if out.exists() else 0) < have + 2:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        whole = tars(tmp_path / "whole")
        assert all(whole[name] == content for name, content in tars(out).items())
    assert kills >= 2 and tars(out) == tars(tmp_path / "whole")


def test_a_folder_of_other_samples_is_left_alone(tmp_path):
    source = write_set(tmp_path / "a", 10)
    pack(tmp_path / "out", source)
    before = tars(tmp_path / "out")
    assert pack(tmp_path / "out", source)["samples"] == 10
    for change in ({"sizes": ((64, 64),)}, {"validation": 0.4}):
        with pytest.raises(RunProblem, match="belongs to a run of another recipe"):
            pack(tmp_path / "out", source, **change)
    assert tars(tmp_path / "out") == before


@pytest.mark.parametrize(
    "line, message",
    [
        ("not json", "is no row of a captioned set"),
        (
            '{"key": "a", "wher": "b", "sha256": "c", "captions": {"dense": ["d"]}}',
            "unexpected keyword argument 'wher'",
        ),
        ('{"key": "a", "where": "b", "sha256": "c", "captions": {"dense": []}}', "every caption must be text"),
        ('{"key": "a", "where": "b", "sha256": "c", "captions": {"dense": [""]}}', "every caption must be text"),
        ('{"key": "a", "where": "b", "sha256": "c", "captions": "d"}', "every caption must be text"),
        ("[1]", "is no row of a captioned set"),
    ],
)
def test_rows_that_are_none_are_named_with_their_line(tmp_path, line, message):
    source = write_set(tmp_path / "a", 2)
    with (source / ROWS).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RecipeProblem, match=rf"captions\.jsonl:3.*{message}"):
        pack(tmp_path / "out", source)


def test_a_folder_is_not_taken_for_rows_that_cannot_be_packed(tmp_path):
    (tmp_path / ROWS).write_text("{}\n")
    with pytest.raises(RecipeProblem):
        pack(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
    assert pack(tmp_path / "out", write_set(tmp_path / "a", 3))["samples"] == 3


@pytest.mark.parametrize("words", [["0x32"], ["64x64", "64x8000"], ["15x15"], ["64"]])
def test_sizes_that_no_picture_has(words):
    with pytest.raises(ValueError, match=rf"--size {words[-1]}"):
        sizes_named(words)
    assert sizes_named(["16x32", "64x48", "16x32"]) == ((16, 32), (64, 48))


def test_sources_without_rows(tmp_path):
    with pytest.raises(RecipeProblem, match=r"there is no captions\.jsonl. Make one with `lens-rl data caption`"):
        pack(tmp_path / "out", tmp_path)
    (tmp_path / ROWS).touch()
    with pytest.raises(RecipeProblem, match="no captioned picture to pack"):
        pack(tmp_path / "out", tmp_path)


SIDES = st.integers(8, 3000)


@given(SIDES, SIDES)
def test_no_picture_is_enlarged_that_fits_a_smaller_tier(height, width):
    bucket = Buckets().choose((height, width))
    base = next(base for base, sizes in TRAINING_BUCKETS.items() if bucket in sizes)
    assert base == 512 or (bucket[0] <= height and bucket[1] <= width)


@given(st.sampled_from([size for sizes in TRAINING_BUCKETS.values() for size in sizes]))
def test_a_bucket_is_its_own_bucket(size):
    assert Buckets().choose(size) == size


@given(st.integers(20, 90), st.integers(20, 90), st.sampled_from(SIZES))
def test_a_picture_that_fits_is_its_own_middle(height, width, bucket):
    """A ramp along both sides stays a ramp around the same middle, at the bucket's size."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y * 255 / height, x * 255 / width, np.full((height, width), 7)], -1).round().astype(np.uint8)
    fitted = fit_picture(image, bucket)
    assert fitted.shape == (*bucket, 3)
    assert np.abs(fitted.mean((0, 1)) - image.mean((0, 1))).max() < 4


def test_text_is_never_cut_and_its_corners_move_with_it():
    corners = [[0, 0], [200, 0], [200, 100], [0, 100]]
    facts = {"texts": [{"text": "a", "letters": 40, "lines": [{"text": "a", "corners": corners}]}], "size": [100, 200]}
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, [0, -1]] = 255  # a frame that a crop would lose
    fitted, moved = fit_text(image, facts, (51, 100))
    assert fitted.shape == (51, 100, 3) and fitted[20, 0, 0] > 100 and fitted[20, -1, 0] > 100
    assert moved["texts"][0]["lines"][0]["corners"] == [[0, 0], [100, 0], [100, 51], [0, 51]]
    assert moved["texts"][0]["letters"] == 20 and moved["size"] == [51, 100]
    with pytest.raises(Unpackable, match="of another shape than every bucket"):
        fit_text(image, facts, (64, 64))
    with pytest.raises(Unpackable, match=r"its letters would be 4\.0 pixels small"):
        fit_text(image, facts, (10, 20))


def test_the_command_and_a_sample_that_a_person_would_write(tmp_path):
    source = write_set(tmp_path / "a", 6)
    words = ["data", "pack", str(source / ROWS), "--out", str(tmp_path / "out"), "--size", "64x64"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "6 samples" in " ".join(result.output.split()), result.output
    found = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert found["buckets"] == {"64x64": 6}
    (first, *_) = read_samples(tmp_path / "out", "train")
    assert decode_whole((source / "pictures" / "0.png").read_bytes()).shape == (64, 64, 3) == first.image.shape
