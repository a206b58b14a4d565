"""Bad input: whatever lies in a source is a row with a reason, and the rest goes on."""

import contextlib
import io
import os
import shutil
import struct
import tarfile
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.data import clean as job
from pipelines.data.cleaning import pixels, reading
from pipelines.data.cleaning.reading import Unreadable

ANY = ("thresholds.min_area=0", "thresholds.sharpness=0", "thresholds.entropy=0", "thresholds.hash_bits=0")
SIZE = (40, 60)


def run(source, out, *overrides):
    found = job.clean(str(source), out, job.load(None, [*ANY, *overrides]))
    return found, pd.read_parquet(out / "manifest.parquet").set_index("key")


def picture(seed=0, size=SIZE):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(side):
    """A PNG of a few hundred bytes that says it is `side` x `side`."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_bad_files(folder):
    """One file of each kind, and what must be said of it: a note on what is kept, or the start of a reason."""
    whole = encoded(picture(1), "JPEG", quality=95)
    frames = [picture(number) for number in range(3)]
    deep = np.random.default_rng(2).integers(0, 1 << 16, SIZE, dtype=np.uint16)
    clear = picture(3).convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))))
    turned = Image.Exif()
    turned[pixels.ORIENTATION] = 6
    files = {
        "zero.jpg": (b"", "empty file"),
        "renamed.jpg": (encoded(picture(4)), "keep:"),
        "text.png": (b"not a picture at all", "not an image: text"),
        "page.jpg": (b"<!doctype html><html></html>", "not an image: a web page"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image: XML or SVG"),
        "zeros.webp": (bytes(3000), "not an image: nothing but zeros"),
        "truncated.jpg": (whole[: len(whole) // 2], "truncated"),
        "bomb.png": (bomb(60_000), "decompression bomb"),
        "bomb-below-pillow.png": (bomb(13_378), "decompression bomb"),
        "animated.gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "not one still image: 3"),
        "animated.webp": (encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "not one still image"),
        "pages.tif": (encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "not one still image: 3"),
        "cmyk.jpg": (encoded(picture(5).convert("CMYK"), "JPEG", quality=95), "keep:cmyk"),
        "deep.png": (encoded(Image.fromarray(deep)), "keep:16-bit"),
        "alpha.png": (encoded(clear), "keep:alpha"),
        "turned.jpg": (encoded(picture(6), "JPEG", exif=turned), "keep:rotated"),
        "float.tif": (encoded(Image.fromarray(np.ones(SIZE, np.float32)), "TIFF"), "pixels are floating-point"),
        "palette.gif": (encoded(picture(7), "GIF"), "keep:"),
        "one-pixel.png": (encoded(picture(8, (1, 1))), "keep:"),
        "line.png": (encoded(picture(9, (1, 3000))), "keep:"),
    }
    folder.mkdir()
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {name: expected for name, (_, expected) in files.items()}


def test_each_kind_of_bad_file_is_a_row_with_its_reason(tmp_path):
    expected = write_bad_files(tmp_path / "in")
    _, rows = run(tmp_path / "in", tmp_path / "out", "thresholds.underexposed=0", "thresholds.overexposed=1")
    assert set(rows.index) == set(expected)
    for name, what in expected.items():
        row = rows.loc[name]
        if what.startswith("keep:"):
            assert row.kept, f"{name}: {row.reason}"
            assert row.notes == what.removeprefix("keep:"), name
        else:
            assert row.dropped_by == "corrupt" and row.reason.startswith(what), f"{name}: {row.reason}"
    assert tuple(rows.loc["turned.jpg", ["height", "width"]]) == (60, 40)


def test_the_folder_itself(tmp_path):
    """Links, pipes, closed folders, hidden files, and files that are no images."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    picture(0).save(tmp_path / "outside" / "secret.png")
    picture(1).save(folder / "sub" / "real.png")
    (folder / "leads-out.png").symlink_to(tmp_path / "outside" / "secret.png")
    (folder / "leads-in.png").symlink_to(folder / "sub" / "real.png")
    (folder / "nowhere.png").symlink_to(folder / "absent.png")
    (folder / "folder-out").symlink_to(tmp_path / "outside")
    (folder / "folder.png").symlink_to(tmp_path / "outside")
    (folder / "leads-out.txt").symlink_to(tmp_path / "outside" / "notes.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / "pipe.png")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image")
    (folder / os.fsdecode(b"latin-\xe9.png")).write_bytes(encoded(picture(2)))
    found, rows = run(folder, tmp_path / "out")
    reasons = rows.reason.to_dict()
    assert reasons.pop("leads-in.png").startswith("") and reasons.pop("sub/real.png") is not None
    assert reasons == {
        "leads-out.png": "a link that leads out of the folder",
        "nowhere.png": "a link that leads nowhere",
        "circle.png": "a link that leads nowhere",
        "folder-out": "a link that leads out of the folder",
        "folder.png": "a link that leads out of the folder",
        "loop": "a link to a folder, whose files have rows of their own",
        "pipe.png": "not a regular file",
        "latin-\\xe9.png": "its name is not UTF-8: rename it",
    }
    assert found["other_files"] == {".txt": 2}
    assert rows.kept.sum() == 1  # The link that leads in is a copy.


def test_broken_tars(tmp_path):
    """Members after a cut are told; those before it are kept."""
    folder = tmp_path / "in"
    folder.mkdir()
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        for number, name in enumerate(["a.png", "b.png", "a.png", "notes.json", "c.png"]):
            content = encoded(picture(number))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    content = (tmp_path / "whole.tar").read_bytes()
    (folder / "whole.tar").write_bytes(content)
    (folder / "cut.tar").write_bytes(content[: 512 + 8192 + 512 + 3000])
    (folder / "text.tar").write_text("no tar")
    _, rows = run(folder, tmp_path / "out")
    reasons = rows.reason.to_dict()
    assert (
        rows.loc[["whole.tar/a.png", "whole.tar/b.png", "whole.tar/c.png"]]
        .dropped_by.isin(("", "near-duplicate"))
        .all()
    )
    assert reasons["whole.tar/a.png#2"] == "a second member of this name"
    assert reasons["cut.tar/b.png"].startswith("the tar holds 3,512 of its 7,308 bytes")
    assert reasons["text.tar/#broken"].startswith("the tar ends early after 0 images")


def test_broken_parquet_files(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    good = encoded(picture(0))
    pq.write_table(pa.table({"jpg": [good, None, b"", b"text"]}), folder / "cells.parquet")
    pq.write_table(pa.table({"path": ["", None, "absent.png", "cells.parquet"]}), folder / "paths.parquet")
    (folder / "text.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"author": ["somebody"]}), folder / "authors.parquet")
    _, rows = run(folder, tmp_path / "out")
    assert rows.kept.sum() == 1 and rows.loc["cells.parquet/000000000"].kept
    reasons = rows.reason.to_dict()
    assert reasons["cells.parquet/000000001"] == reasons["cells.parquet/000000002"] == "empty file"
    assert reasons["paths.parquet/000000000"] == reasons["paths.parquet/000000001"] == "no path or URL in this row"
    assert reasons["paths.parquet/000000002"] == "cannot be read: No such file or directory"
    assert reasons["authors.parquet/#table"] == "which column holds the images? Give --column, one of: author"
    assert reasons["text.parquet/#broken"].startswith("the Parquet file cannot be read")


class Faulty(BaseHTTPRequestHandler):
    """Answers by its path; `asked` counts."""

    asked: ClassVar[dict[str, int]] = {}
    good = encoded(picture(0))

    def do_GET(self):
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        name = self.path.strip("/")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, f"_{name.split('-')[0]}")(name)

    def _answer(self, status, kind="image/png", content=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for header, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    def _good(self, _):
        self._answer(200, content=self.good)

    def _hangs(self, _):
        time.sleep(6)

    def _drips(self, _):
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        for byte in self.good[:40]:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.3)

    def _moved(self, _):
        self._answer(302, Location="/good")

    def _circle(self, _):
        self._answer(302, Location="/circle")

    def _file(self, _):
        self._answer(302, Location="file:///etc/passwd")

    def _html(self, _):
        self._answer(200, "text/html", b"<html>please log in</html>")

    def _disguised(self, _):
        self._answer(200, "image/jpeg", b"<html>please log in</html>")

    def _absent(self, _):
        self._answer(404)

    def _busy(self, name):
        self._answer(*((503,) if self.asked[self.path] == 1 else (200, "image/png", self.good)))

    def _short(self, _):
        self._answer(200, content=self.good[:500], **{"Content-Length": str(len(self.good))})

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Faulty.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Faulty) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_urls_that_hang_redirect_or_answer_something_else(server, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "FETCH_SECONDS", 2.5)
    names = ["good", "hangs", "drips", "moved", "circle", "file", "html", "disguised", "absent", "busy", "short"]
    urls = [f"{server}/{name}" for name in names] + ["http://127.0.0.1:9/refused"]
    pq.write_table(pa.table({"url": urls}), tmp_path / "list.parquet")
    started = time.monotonic()
    _, rows = run(tmp_path / "list.parquet", tmp_path / "out")
    assert time.monotonic() - started < 60
    reasons = dict(zip([*names, "refused"], rows.reason, strict=True))
    fine = {name for name, dropped in zip(reasons, rows.dropped_by, strict=True) if dropped != "corrupt"}
    assert fine == {"good", "moved", "busy"}, reasons
    assert "timed out" in reasons["hangs"]
    assert "not all of it came" in reasons["drips"] or "timed out" in reasons["drips"]
    assert "infinite loop" in reasons["circle"] or "302" in reasons["circle"]
    assert "302" in reasons["file"] or "file" in reasons["file"]
    assert reasons["html"] == "the server answered with a web page"
    assert reasons["disguised"] == "not an image: a web page"
    assert reasons["absent"].startswith("the server answered 404")
    assert "500" in reasons["short"] or "truncated" in reasons["short"]
    assert "refused" in reasons["refused"].lower()
    assert Faulty.asked["/hangs"] == 2 and Faulty.asked["/absent"] == 1


def test_what_a_table_may_not_ask_for(tmp_path):
    """A stranger's table is read through plain stores alone: no chain, no other file system of fsspec."""
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "black.png")
    refused = ["zip://a.png::file:///a.zip", "simplecache::https://x.org/a.png", "reference://a::https://x.org/a.json"]
    refused += ["s3://bucket/a.png::https://x.org", "nonsense://x/y.png"]
    followed = [f"file://{tmp_path}/black.png", "black.png", str(tmp_path / "black.png")]
    pq.write_table(pa.table({"url": refused + followed}), tmp_path / "list.parquet")
    _, rows = run(tmp_path / "list.parquet", tmp_path / "out")
    assert rows.reason[: len(refused)].str.startswith("a URL that is not followed: ").all()
    assert rows.height[len(refused) :].eq(SIZE[0]).all()


def test_an_object_store(tmp_path):
    """The store that fsspec keeps in memory stands for those that it reaches by the network."""
    import fsspec

    files = fsspec.filesystem("memory")
    for number in range(3):
        files.pipe(f"/bucket/images/{number}.png", encoded(picture(number)))
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        picture(5).save(tmp_path / "five.png")
        tar.add(tmp_path / "five.png", "five.png")
    files.pipe("/bucket/images/shard.tar", (tmp_path / "shard.tar").read_bytes())
    try:
        found, rows = run("memory://bucket/images", tmp_path / "out")
    finally:
        files.rm("/bucket", recursive=True)
    assert list(rows.index) == ["0.png", "1.png", "2.png", "shard.tar/five.png"] and found["kept"] == 4


WHOLE = [encoded(picture(0), "JPEG"), encoded(picture(0)), encoded(picture(0), "WEBP"), encoded(picture(0), "GIF")]


@given(st.sampled_from(WHOLE), st.data())
def test_no_bytes_raise_anything_but_unreadable(content, data):
    """Flipped, cut and doubled bytes: an image, or a reason."""
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(0, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(broken)))
    try:
        row = pixels.measure(bytes(broken[:end]) or b"x")
    except Unreadable as problem:
        assert str(problem)
    else:
        assert row["height"] > 0 and 0 <= row["entropy"] <= 8 and len(row["hash"]) == 32


def test_sixteen_bits_keep_their_upper_eight():
    """A library's own conversion would clip nearly all of them to white."""
    ramp = np.linspace(0, 65535, 512, dtype=np.uint16)[None].repeat(64, 0)
    rgb = pixels.decode(encoded(Image.fromarray(ramp)), 512).rgb
    assert (rgb[0, :, 0] == ramp[0] >> 8).all()


def test_alpha_is_laid_over_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (pixels.decode(encoded(clear), 512).rgb == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_an_image_as_pillow_does(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation
    content = encoded(picture(0), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    found = pixels.decode(content, 512)
    assert (found.rgb == expected).all() and (found.height, found.width) == expected.shape[:2]


def test_pixel_measures_have_closed_forms():
    flat, two = np.full((64, 64), 90, np.uint8), np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert pixels.entropy(flat) == 0 and pixels.entropy(two) == 1
    assert pixels.entropy(np.arange(256, dtype=np.uint8)[None].repeat(8, 0)) == pytest.approx(8)
    assert pixels.sharpness(flat) == 0
    # A checked board: the Laplacian is -4 times what departs from the mean of its neighbours, on both sides.
    board = (np.indices((64, 64)).sum(0) % 2 * 200).astype(np.uint8)
    assert pixels.sharpness(board) == pytest.approx((4 * 2) ** 2, rel=0.01)
    assert pixels.percentiles(np.arange(100, dtype=np.uint8)[None], (0.01, 0.99)) == [0, 98]


@given(st.floats(0.3, 1.0))
def test_sharpness_does_not_depend_on_light(gain):
    random = np.random.default_rng(0)
    gray = random.integers(0, 256, (64, 64)).astype(np.uint8)
    assert pixels.sharpness((gray * gain).astype(np.uint8)) == pytest.approx(pixels.sharpness(gray), rel=0.03)


def test_a_large_jpeg_is_measured_as_its_lossless_twin():
    """A scaled decode of a JPEG and a full one of a PNG give the same judgement."""
    import skimage

    folder = skimage.data_dir
    large = Image.open(f"{folder}/hubble_deep_field.jpg").convert("RGB").resize((1600, 1400))
    jpeg = pixels.measure(encoded(large, "JPEG", quality=98))
    png = pixels.measure(encoded(large))
    bits = np.unpackbits(np.frombuffer(jpeg["hash"], np.uint8) ^ np.frombuffer(png["hash"], np.uint8)).sum()
    assert bits <= 6
    assert jpeg["entropy"] == pytest.approx(png["entropy"], abs=0.1)
    assert jpeg["sharpness"] == pytest.approx(png["sharpness"], rel=0.25)


def test_a_source_that_goes_away_while_it_is_read(tmp_path):
    """Rows of what is gone have a reason; listing it is not reading it."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        picture(number).save(folder / f"{number}.png")
    from pipelines.data.cleaning.tables import Tables

    Tables(tmp_path / "out", job.load(None, [])).list_source(str(folder), None)
    shutil.rmtree(folder)
    folder.mkdir()
    _, rows = run(folder, tmp_path / "out")
    assert (rows.reason == "cannot be read: No such file or directory").all() and len(rows) == 4
