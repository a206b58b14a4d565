"""What `caption`, `render-text` and `pack` share: one process a folder, a full disk, an extra that is not there."""

import os
import signal
import subprocess
import sys

import pytest

from lens_core.recipes import RecipeProblem
from lens_core.runs import RunFolder, RunProblem
from pipelines.data.caption import Order, caption, captioner
from pipelines.data.needs import need
from pipelines.data.render_text import render_text
from tests.chat_server import completion, serving
from tests.test_caption import write_pictures
from tests.test_caption_rules import DENSE
from tests.test_pack_captioned import SIZES, pack, write_set
from tests.test_render_text import order
from tests.typefaces import FONTS

FILE_LIMIT = 40_000
"""Bytes, past which the kernel refuses as it does on a full disk."""


@pytest.fixture
def server():
    with serving(lambda *_: completion(DENSE)) as running:
        yield running


def commands(folder, url):
    """The words of each command, from the files that it needs."""
    photos, captioned = write_pictures(folder / "photos", 40), write_set(folder / "captioned", 12)
    lines = folder / "lines.txt"
    lines.write_text("Open daily\n", encoding="utf-8")
    sizes = [word for height, width in SIZES for word in ("--size", f"{height}x{width}")]
    return {
        "caption": ["caption", photos, "--model", "model=m", "--model", f"base_url={url}"],
        "render-text": ["render-text", "--count", "6", "--size", "512x768", "--fonts", FONTS, "--texts", lines],
        "pack": ["pack", captioned, *sizes],
    }


def run(words, out, *, file_limit=None):
    """As a command of its own, whose exit status and messages are what a user sees."""

    def limit():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    command = [sys.executable, "-m", "pipelines", "data", *map(str, words), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit if file_limit else None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["caption", "render-text", "pack"])
def test_a_full_disk_is_told_and_the_same_command_goes_on(tmp_path, server, name):
    words, out = commands(tmp_path, server.url)[name], tmp_path / "out"
    refused = run(words, out, file_limit=FILE_LIMIT)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr, refused.stderr
    assert str(out) in refused.stderr and "lens-rl: " in refused.stderr
    assert not list(out.rglob("*.draft"))
    assert run(words, out).returncode == 0
    assert run(words, tmp_path / "whole").returncode == 0
    for file in (tmp_path / "whole").rglob("*"):
        if file.suffix in (".tar", ".jsonl", ".jpg"):
            assert (out / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()


def test_two_processes_never_write_into_one_folder(tmp_path, server):
    source, captioned = write_pictures(tmp_path / "photos", 1), write_set(tmp_path / "captioned", 3)
    section = captioner(["model=m", f"base_url={server.url}"])
    with RunFolder(tmp_path / "out"):
        for work in (
            lambda: caption(Order(str(source), tmp_path / "out"), section),
            lambda: render_text(order(tmp_path / "out")),
            lambda: pack(tmp_path / "out", captioned),
        ):
            with pytest.raises(RunProblem, match=f"in use by process {os.getpid()}"):
                work()
    assert not server.requests and {file.name for file in (tmp_path / "out").iterdir()} == {".lock"}


def test_captions_are_not_written_among_the_pictures(tmp_path, server):
    source = write_pictures(tmp_path / "photos", 1)
    section = captioner(["model=m", f"base_url={server.url}"])
    with pytest.raises(RecipeProblem, match=r"--out .*captions lies in the source"):
        caption(Order(str(source), source / "captions"), section)
    assert not (source / "captions").exists()


@pytest.mark.parametrize(
    "words, missing, extra",
    [
        (["caption", "photos", "--model", "model=m"], "cv2", "data"),
        (["render-text", "--count", "1"], "cv2", "data"),
        (["render-text", "--count", "1", "--check"], "rapidocr", "text"),
        (["pack", "captioned"], "megatron", "pretrain"),
    ],
)
def test_an_extra_that_is_not_there_is_named_before_anything_is_made(tmp_path, words, missing, extra):
    """In a process that cannot import it, as where it was never installed."""
    code = f"import sys; sys.modules[{missing!r}] = None; from pipelines.cli import main; main()"
    command = [sys.executable, "-c", code, "data", *words, "--out", str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OPENAI_API_KEY": "test-key"})
    assert found.returncode == 1 and f"pip install 'lens-rl[{extra}]'" in found.stderr, found.stderr
    assert "Traceback" not in found.stderr and not (tmp_path / "out").exists()


def test_what_is_installed_is_not_missed():
    need("a test", "test", "pytest", "importlib.util")
    with pytest.raises(RunProblem, match=r"^a test needs no_such, json\.no_such, no_such\.part: pip install"):
        need("a test", "test", "no_such", "json.no_such", "pytest", "no_such.part")
