"""Captions from a real server on loopback: seen by a real model, resumed to the picture, charged once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lens_core.recipes import RecipeProblem
from lens_core.runs import RunProblem
from lens_rl.judges.accounts import accounts
from lens_rl.judges.backend import JudgeProblem
from lens_rl.judges.prices import worst_cost_of
from lens_rl.recipe import Price
from pipelines.cli import app
from pipelines.data.caption import STORE, Order, caption, captioner, kinds_named
from pipelines.data.captioned import LEFT_OUT, ROWS, read_captioned
from pipelines.data.captioning.captioner import CaptionModel
from rubrics.captions import CaptionTemplate
from tests import fault_server
from tests.chat_server import Reply, completion, serving
from tests.test_caption_rules import DENSE
from tests.tiny_vlm import SEEN, solid

BRIEF = "Two bicycles against a yellow wall."


def write_pictures(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def run(source, out, url, *fields, kinds=("dense",), template=None):
    section = captioner(["model=m", f"base_url={url}", "concurrency=4", *fields])
    return caption(Order(str(source), out, kinds, template), section)


def rows(out):
    return list(read_captioned(out))


def left_out(out):
    return {row["key"]: row["reason"] for row in map(json.loads, (out / LEFT_OUT).read_text().splitlines())}


def good(_number, body):
    return completion(BRIEF if body["max_tokens"] < 500 else DENSE)


def test_a_model_that_sees_says_what_it_sees(tmp_path, tiny_vlm):
    from tests.vlm_server import NAME
    from tests.vlm_server import serving as vlm

    (tmp_path / "photos").mkdir()
    for number, colour in enumerate([*SEEN, *SEEN]):
        pixels = solid(colour, np.random.default_rng(number))
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}-{colour}.png")
    with vlm(tiny_vlm) as server:
        summary = run(tmp_path / "photos", tmp_path / "out", server.url, f"model={NAME}")
    assert summary["captioned"] == 6 and not summary["left_out"]
    for row in rows(tmp_path / "out"):
        assert row.key.split("-")[1].removesuffix(".png") in row.captions["dense"][0]


def test_both_kinds_in_the_order_of_the_source_and_their_lengths(tmp_path):
    source = write_pictures(tmp_path / "photos")
    with serving(good) as server:
        summary = run(source, tmp_path / "out", server.url, kinds=kinds_named("both"))
    found = rows(tmp_path / "out")
    assert [row.key for row in found] == sorted(file.name for file in source.iterdir())
    assert all(row.captions == {"dense": [DENSE], "brief": [BRIEF]} for row in found)
    assert summary["kinds"]["dense"]["words"]["mean"] == len(DENSE.split()) and summary["asked_now"] == 12
    assert summary["kinds"]["dense"]["quotations"] == {"latin": 6, "chinese": 6}
    system = {body["messages"][0]["content"] for body in server.requests}
    assert len(system) == 1 and all(
        body["messages"][1]["content"][0]["type"] == "image_url" for body in server.requests
    )


def test_a_second_command_asks_nothing_and_changes_nothing(tmp_path):
    source = write_pictures(tmp_path / "photos")
    with serving(good) as server:
        run(source, tmp_path / "out", server.url)
        before = (tmp_path / "out" / ROWS).read_bytes()
        again = run(source, tmp_path / "out", server.url)
        assert len(server.requests) == 6 and again["asked_now"] == 0
        assert (tmp_path / "out" / ROWS).read_bytes() == before
        write_pictures(tmp_path / "more", 8)
        for file in (tmp_path / "more").iterdir():
            file.replace(source / file.name)
        assert run(source, tmp_path / "out", server.url)["asked_now"] == 2  # to the picture


def test_a_picture_that_is_there_twice_is_asked_about_once(tmp_path):
    source = write_pictures(tmp_path / "photos", 1)
    for number in range(8):
        (source / f"copy {number} 写真.png").write_bytes((source / "000.png").read_bytes())
    with serving(good) as server:
        summary = run(source, tmp_path / "out", server.url)
    assert len(server.requests) == 1 and summary["captioned"] == 9


def test_a_useless_reply_is_asked_again_with_the_reason_and_then_counted(tmp_path):
    source = write_pictures(tmp_path / "photos", 12)

    def reply(number, body):
        text = body["messages"][1]["content"][1]["text"]
        return completion(DENSE if number or "could not be used" in text else "I'm sorry, I can't help.")

    with serving(reply) as server:
        summary = run(source, tmp_path / "out", server.url, "concurrency=1")
    assert summary["captioned"] == 12 and len(server.requests) == 13
    assert "it refuses" in server.requests[1]["messages"][1]["content"][1]["text"]

    def refuses_one(_number, body):
        return completion(None, refusal="No.") if body["messages"][1]["content"][0] == picture else completion(DENSE)

    picture = server.requests[2]["messages"][1]["content"][0]
    with serving(refuses_one) as server:
        summary = run(source, tmp_path / "two", server.url)
    assert summary["failed"] == {"refusal": 1} and summary["captioned"] == 11
    (reason,) = left_out(tmp_path / "two").values()
    assert reason == "dense: refusal: No."


def test_unreadable_pictures_are_rows_with_a_reason_and_the_rest_goes_on(tmp_path):
    source = write_pictures(tmp_path / "photos", 3)
    (source / "empty.jpg").write_bytes(b"")
    (source / "renamed.png").write_text("<html>not here</html>")
    whole = (source / "000.png").read_bytes()
    (source / "half.png").write_bytes(whole[: len(whole) // 2])
    (source / "link.png").symlink_to(tmp_path / "elsewhere.png")
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(source / "animated.gif", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (20, 20)).save(source / "cmyk.jpg")
    Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)).save(source / "sixteen.png")
    with serving(good) as server:
        summary = run(source, tmp_path / "out", server.url)
    assert {row.key for row in rows(tmp_path / "out")} == {"000.png", "001.png", "002.png", "cmyk.jpg", "sixteen.png"}
    reasons = left_out(tmp_path / "out")
    assert summary["unreadable"] == len(reasons) == 5
    assert reasons["empty.jpg"] == "empty file" and "frames" in reasons["animated.gif"]


def test_faults_at_a_third_of_the_requests_leave_no_caption_false_and_the_ledger_equal(tmp_path):
    """What the server counted is what the ledger says, request by request; each caption is that of its own picture."""
    source = write_pictures(tmp_path / "photos", 60)
    kinds = ["429 soon", "500", "503", "drop", "cut", "refusal", "empty", "error object"]
    with fault_server.running(rate=0.3, seed=3, kinds=kinds) as server:
        fields = ("max_error_share=1.0", "price.input=1.0", "price.output=2.0", "concurrency=16")
        summary = run(source, tmp_path / "out", server.url, *fields)
        seen = server.seen()
        while summary["left_out"]:  # what is missing is asked for again, and nothing else
            before = summary["captioned"]
            summary = run(source, tmp_path / "out", server.url, *fields)
            assert summary["asked_now"] == 60 - before
        total = server.seen()
    assert len(seen.faults) == len(kinds) and summary["captioned"] == 60
    (account,) = accounts([tmp_path / "out" / STORE])
    assert account["in_all"]["tries"] == total.requests
    tokens = sum(account["in_all"][name] for name in ("input_tokens", "output_tokens"))
    assert tokens == total.tokens
    keys = {fault_server.caption_of(key) for key in total.asked}
    assert {row.captions["dense"][0] for row in rows(tmp_path / "out")} == keys


def test_the_budget_stops_before_it_is_passed_and_a_larger_one_goes_on(tmp_path):
    """Each caption costs 91 tokens. The budget holds ten and a half, and one worst case: eleven are asked for."""
    source = write_pictures(tmp_path / "photos", 30)
    price, each = Price(input=10.0, output=10.0), 91 * 10.0 / 1e6
    with serving(good) as server:
        fields = ("price.input=10.0", "price.output=10.0", "concurrency=1")
        model = CaptionModel(captioner(["model=m", f"base_url={server.url}"]), CaptionTemplate())
        budget = worst_cost_of(model.worst_case("dense"), price) + 10.5 * each
        with pytest.raises(JudgeProblem, match=r"--model budget_usd: .* US dollars are spent"):
            run(source, tmp_path / "out", server.url, f"budget_usd={budget}", *fields)
        assert len(server.requests) == 11
        summary = run(source, tmp_path / "out", server.url, "budget_usd=5.0", *fields)
    assert summary["captioned"] == 30 == len(server.requests)
    assert summary["cost_usd"] == pytest.approx(30 * each)


@pytest.mark.slow
def test_killed_again_and_again_it_asks_for_no_stored_caption_twice(tmp_path):
    source = write_pictures(tmp_path / "photos", 60)
    with fault_server.running(latency=0.05) as server:
        fields = [f"--model={field}" for field in ("model=m", f"base_url={server.url}", "concurrency=4")]
        command = [
            sys.executable,
            "-m",
            "pipelines",
            "data",
            "caption",
            str(source),
            "--out",
            str(tmp_path / "out"),
            *fields,
        ]
        kills = 0
        while True:
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            asked, started = len(server.seen().asked), time.monotonic()
            while process.poll() is None and len(server.seen().asked) < asked + 12:
                time.sleep(0.02)
                assert time.monotonic() < started + 120
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        asked = server.seen().asked
    assert kills >= 3 and process.returncode == 0
    assert len(set(asked)) == 60 and len(asked) - 60 <= 4 * kills  # at most what was in flight
    assert len(rows(tmp_path / "out")) == 60


def test_an_endpoint_that_is_down_stops_the_command_and_costs_nothing(tmp_path):
    source = write_pictures(tmp_path / "photos", 3)
    with serving(lambda *_: Reply({"error": {"message": "bad key"}}, 401)) as server:
        with pytest.raises(JudgeProblem, match=r"--model\.api_key_env: .* rejected"):
            run(source, tmp_path / "out", server.url)
        assert len(server.requests) <= 4
    with (
        serving(lambda *_: completion("I'm sorry, I can't help with that.")) as server,
        pytest.raises(
            JudgeProblem,
            match=r"3 of 3 captions asked for could not be had \(3 refusal; the last: it refuses: .*\), more",
        ),
    ):
        run(source, tmp_path / "out", server.url)
    assert set(left_out(tmp_path / "out")) == {"000.png", "001.png", "002.png"}


@pytest.mark.parametrize(
    "fields, message",
    [
        (["modle=m"], "unknown field 'modle'.*did you mean 'model'"),
        (
            ["model=unheard-of", "budget_usd=1.0"],
            r"--model\.budget_usd is 1\.0, but the price of 'unheard-of' is unknown",
        ),
        (["base_url=http://127.0.0.1:1/v1"], r"--model\.model is missing"),
        (["model=m", "reasoning_effort=low"], "takes none"),
    ],
)
def test_what_cannot_work_is_told_before_any_picture_is_read(tmp_path, fields, message):
    source = write_pictures(tmp_path / "photos", 1)
    local = [] if any("=http" in field for field in fields) else ["base_url=http://127.0.0.1:1/v1"]
    with pytest.raises(RecipeProblem, match=message):
        caption(Order(str(source), tmp_path / "out"), captioner([*fields, *local]))
    assert not (tmp_path / "out").exists()


def test_folders_that_are_none_or_are_in_use_or_of_another_source(tmp_path):
    source = write_pictures(tmp_path / "photos", 1)
    with pytest.raises(RecipeProblem, match=r"--kind dens: .*did you mean 'dense'"):
        kinds_named("dens")
    with serving(good) as server:
        with pytest.raises(RecipeProblem, match="no such file or folder"):
            run(tmp_path / "nothing", tmp_path / "out", server.url)
        run(source, tmp_path / "out", server.url)
        write_pictures(tmp_path / "others", 1)
        with pytest.raises(RunProblem, match="belongs to a run of another"):
            run(tmp_path / "others", tmp_path / "out", server.url)


def test_the_command(tmp_path):
    source = write_pictures(tmp_path / "photos", 2)
    with serving(good) as server:
        words = ["data", "caption", str(source), "--out", str(tmp_path / "out"), "--kind", "both"]
        result = CliRunner().invoke(app, [*words, "--model", "model=m", "--model", f"base_url={server.url}"])
    assert result.exit_code == 0, result.output
    assert "2 of 2 pictures captioned at an unknown price" in " ".join(result.output.split())
    report = CliRunner().invoke(app, ["judge", "report", str(tmp_path / "out" / STORE), "--json"])
    assert report.exit_code == 0, report.output
