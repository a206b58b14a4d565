"""`lens-rl data render-text`: the same files however often it is stopped, and pictures that say what they show."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lens_core.recipes import RecipeProblem
from lens_core.runs import RunProblem
from pipelines.cli import app
from pipelines.data import render_text as job
from pipelines.data.captioned import LEFT_OUT, ROWS, decode_whole, read_captioned, sha256
from pipelines.data.render_text import Order, render_text
from pipelines.data.text.order import draw, prepare
from pipelines.data.text.reading import Reader
from tests.typefaces import FONTS

SMALL = {"sizes": ((192, 256), (256, 256)), "fonts": (FONTS,)}


def order(out, count=6, **changes):
    return Order(out, count, **{**SMALL, "scripts": ("latin", "greek"), **changes})


def files(out):
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "text"
    render_text(order(out))
    return out


def test_rows_are_true_of_their_files(made):
    found = list(read_captioned(made))
    assert len(found) == 6
    for row in found:
        content = (made / row.where).read_bytes()
        assert sha256(content) == row.sha256
        assert list(decode_whole(content).shape[:2]) == row.facts["size"]
        for text in row.facts["texts"]:
            assert text["text"] in row.captions["dense"][0]
            assert "".join(line["text"] for line in text["lines"]).replace(" ", "") == text["text"].replace(" ", "")


def test_a_second_command_draws_nothing(made, monkeypatch):
    before = files(made)
    monkeypatch.setattr(job, "draw", None)
    assert render_text(order(made))["pictures"] == 6
    assert files(made) == before


def test_stopped_anywhere_it_goes_on_to_the_same_files(made, tmp_path):
    """After a kill: a picture without its row, and a row without its end."""
    cut = tmp_path / "text"
    shutil.copytree(made, cut)
    lines = (cut / ROWS).read_text(encoding="utf-8").splitlines(keepends=True)
    (cut / ROWS).write_text("".join(lines[:3]) + lines[3][:40], encoding="utf-8")
    (cut / "pictures" / "000" / "text-000003.jpg").write_bytes(b"half a picture")
    (cut / "pictures" / "000" / "text-000005.jpg").unlink()
    render_text(order(cut))
    assert files(cut) == files(made)


def test_more_later_is_as_many_at_once_and_workers_change_nothing(made, tmp_path):
    render_text(order(tmp_path / "text", count=2))
    render_text(order(tmp_path / "text", count=6, workers=2))
    assert files(tmp_path / "text") == files(made)


def test_a_folder_of_other_settings_is_left_alone(made):
    with pytest.raises(RunProblem, match=r"belongs to a run of another recipe.*\n  seed: 0 there, 1 here"):
        render_text(order(made, seed=1))


def test_lines_of_ones_own_on_pictures_of_ones_own(tmp_path):
    (tmp_path / "lines.txt").write_text("Café Zoë\n  Вход  \n", encoding="utf-8")
    (tmp_path / "photos").mkdir()
    Image.effect_noise((300, 200), 60).convert("RGB").save(tmp_path / "photos" / "a.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    mine = order(tmp_path / "text", 8, scripts=(), texts=tmp_path / "lines.txt", backgrounds=tmp_path / "photos")
    summary = render_text(mine)
    rows = list(read_captioned(tmp_path / "text"))
    written = {text["text"] for row in rows for text in row.facts["texts"]}
    assert written == {"Café Zoë", "Вход"} and set(summary["scripts"]) == {"latin", "cyrillic"}
    assert any("on a photograph" in row.captions["dense"][0] for row in rows)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scripts": ("latn",)}, "unknown script 'latn'.*did you mean 'latin'"),
        ({"scripts": ("korean",)}, r"--script korean: no font has all of its letters: apt install fonts-noto-cjk"),
        ({"texts": "한국어"}, r"--texts: no font has all letters of '한국어' \(.* lacks '한국어'\): install one"),
        ({"texts": " \n"}, "there is no line of text in it"),
        ({"texts": None}, "cannot be read as UTF-8 text"),
        ({"backgrounds": True}, r"--backgrounds .*: there are no pictures \(\.jpg"),
    ],
)
def test_what_cannot_be_drawn_is_told_before_anything_is(tmp_path, changes, message):
    if "texts" in changes:
        content = changes["texts"].encode() if changes["texts"] else b"\xff\xfe\xfa"
        (tmp_path / "lines.txt").write_bytes(content)
        changes = {"texts": tmp_path / "lines.txt", "scripts": ()}
    if "backgrounds" in changes:
        changes = {"backgrounds": tmp_path}
    with pytest.raises(RecipeProblem, match=message):
        render_text(order(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_pictures_too_small_are_counted_with_the_reason(tmp_path):
    summary = render_text(order(tmp_path / "text", 3, sizes=((20, 20),)))
    assert summary["pictures"] == 0 and summary["left_out"] == 3
    (reason,) = {json.loads(line)["reason"][:9] for line in (tmp_path / "text" / LEFT_OUT).read_text().splitlines()}
    assert reason == "no letter"


@pytest.fixture(scope="module")
def reader():
    return Reader()


def test_the_reader_reads_what_is_there_and_not_what_is_not(reader):
    stock = prepare(Order(fonts=(FONTS,), scripts=("latin",), sizes=((512, 512),), out=FONTS, count=1))
    _, drawn, _ = draw(stock, 1)
    image, asked = np.asarray(drawn.picture), [block.text for block in drawn.blocks]
    assert reader.check(image, asked, spaced=True).share == 1.0
    assert reader.check(image, [*asked, "zebra"], spaced=True).share < 1.0
    assert reader.check(np.full((200, 200, 3), 255, np.uint8), asked, spaced=True).found == 0
    assert reader.unknown("Straße 東京") == "" and reader.unknown("abc Улица") == "Улица"


def test_checked_pictures_are_kept_where_they_are_read_and_others_are_named(tmp_path, reader, monkeypatch):
    monkeypatch.setattr(job, "Reader", lambda: reader)
    summary = render_text(order(tmp_path / "text", 4, check=True, sizes=((384, 512),)))
    kept = list(read_captioned(tmp_path / "text"))
    assert len(kept) + summary["left_out"] == 4
    assert all(row.facts["read"]["found"] == row.facts["read"]["asked"] for row in kept if row.facts["read"]["checked"])
    assert all(not row.facts["read"]["checked"] for row in kept if row.facts["script"] == "greek")

    class Misreader:
        def unknown(self, text):
            return ""

        def check(self, image, asked, *, spaced):
            return reader.check(image, [text[::-1] + "x" for text in asked], spaced=spaced)

    monkeypatch.setattr(job, "Reader", Misreader)
    summary = render_text(order(tmp_path / "misread", 2, check=True))
    assert summary["pictures"] == 0
    for line in (tmp_path / "misread" / LEFT_OUT).read_text().splitlines():
        assert "words are read back; seen: " in json.loads(line)["reason"]


def test_the_command(tmp_path):
    words = ["data", "render-text", "--out", str(tmp_path / "t"), "--count", "2", "--size", "192x256"]
    result = CliRunner().invoke(app, [*words, "--fonts", str(FONTS), "--script", "latin"])
    assert result.exit_code == 0 and "2 pictures in" in " ".join(result.output.split()), result.output
    result = CliRunner().invoke(app, [*words, "--size", "192"])
    assert result.exit_code == 1 and "write it as HxW" in result.output
