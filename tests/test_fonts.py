"""Fonts: a face covers what its own table of characters says, and what it looks like is in its name."""

import unicodedata

import pytest
from fontTools.ttLib import TTFont

from lens_core.recipes import RecipeProblem
from pipelines.data.text.fonts import Face, covering, find_faces
from pipelines.data.text.order import Order, prepare
from pipelines.data.text.scripts import script_of, shipped
from tests.typefaces import COVERED, FACES, FONTS

LETTERS = sorted({letter for script in shipped().values() for letter in script.alphabet})


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
def test_coverage_is_that_of_the_fonts_own_table(face):
    known = TTFont(face.file, fontNumber=face.index).getBestCmap()
    seen = [letter for letter in LETTERS if unicodedata.category(letter)[0] == "L"]
    assert {letter for letter in seen if face.has(letter)} == {letter for letter in seen if ord(letter) in known}
    assert face.lacks("a中b中") == "中" and not face.lacks("plain words")


def test_a_font_of_last_resort_covers_nothing_though_its_table_names_everything():
    (face,) = find_faces_named("LastResort")
    assert len(TTFont(face.file).getBestCmap()) > 100_000
    assert all(not covering([face], script) for script in shipped().values())
    assert len(face.lacks("한국어 가각 Straße")) >= 9


def test_lines_of_ones_own_are_set_in_fonts_of_their_whole_script_where_there_are_some(tmp_path):
    """matplotlib brings fonts with signs in the place of A to Z, which their tables call A to Z."""
    lines = tmp_path / "lines.txt"
    lines.write_text("Grand opening\n")
    (symbols,) = find_faces_named("cmsy10")
    assert not symbols.lacks("Grand opening")
    chosen = prepare(Order(tmp_path, 1, fonts=(FONTS,), texts=lines)).faces["latin"]
    assert chosen and symbols not in chosen and all(not face.lacks(shipped()["latin"].alphabet) for face in chosen)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "plain.ttf").write_bytes((FONTS / "cmr10.ttf").read_bytes())
    assert len(prepare(Order(tmp_path, 1, fonts=(tmp_path / "own",), texts=lines)).faces["latin"]) == 1


def find_faces_named(start):
    return [face for face in find_faces([FONTS]) if face.file.name.startswith(start)]


def test_scripts_find_their_fonts_and_no_others():
    assert {"latin", "cyrillic", "greek", "georgian", "armenian"} <= set(COVERED)
    assert not {"chinese", "japanese", "korean", "devanagari", "thai"} & set(COVERED)
    for name, faces in COVERED.items():
        assert all(not face.lacks(shipped()[name].alphabet) for face in faces)


def test_a_cjk_font_of_another_region_is_not_taken():
    script = shipped()["latin"].model_copy(update={"region": "SC"})
    plain = FACES[0]
    sc, jp = (Face(plain.file, plain.index, f"Noto Sans CJK {region}", "Regular") for region in ("SC", "JP"))
    assert covering([plain, sc, jp], script) == [plain, sc]


@pytest.mark.parametrize(
    "family, style, looks",
    [
        ("DejaVu Sans Mono", "Bold Oblique", "bold italic monospace"),
        ("Noto Serif", "Condensed Light Italic", "light condensed italic serif"),
        ("Liberation Sans", "Regular", "sans-serif"),
        ("Inter", "Regular", ""),
    ],
)
def test_what_a_name_gives_away(family, style, looks):
    assert Face(FONTS, 0, family, style).looks == looks


def test_folders_without_fonts_say_what_to_install(tmp_path):
    with pytest.raises(RecipeProblem, match=r"--fonts .*nowhere: there is no such folder"):
        find_faces([tmp_path / "nowhere"])
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    with pytest.raises(RecipeProblem, match=r"apt install fonts-dejavu fonts-noto-core fonts-noto-cjk"):
        find_faces([tmp_path])
    (tmp_path / "whole.ttf").write_bytes((FONTS / "DejaVuSans.ttf").read_bytes())
    assert [face.family for face in find_faces([tmp_path])] == ["DejaVu Sans"]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_line_is_of_its_script(name):
    script = shipped()[name]
    wanted = {name, "chinese"} if name == "japanese" else {name}  # words without kana are the same letters
    for text in (*script.lines, *script.words.split()):
        assert script_of(text) in wanted, text
        assert text == unicodedata.normalize("NFC", text)
