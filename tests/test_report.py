"""The page of a run: true to its numbers, safe against its texts, whole at any moment, and right in a real browser."""

import dataclasses
import io
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lens_core.recipes import find_recipe, load_recipe, read_recipe
from lens_core.runs import RunFolder, RunProblem
from lens_rl import report
from lens_rl.job import run_job
from lens_rl.recipe import RECIPES, RlRecipe
from lens_rl.report.compare import compare_runs
from lens_rl.report.page import render_report
from lens_rl.report.record import read_run
from lens_rl.report.tables import comparison_table, held_out_table, learning_table
from lens_rl.report.words import count, dollars, duration, percent, share, signed
from lens_rl.samples import folder_of_test
from pipelines.cli import app
from tests.browser import CHROMIUM, Browser
from tests.e2e.runs import SMALL, model

HOSTILE = [
    "<script>document.title = 'taken'</script> one red circle",
    '"><img src=x onerror="document.title = 1"> one red circle',
    "{{ 7 * 7 }} one red circle {% include 'page.css' %}",
    "one red circle\u2028</style><style>body { display: none }",
    "o" * 300 + " one red circle",
]


def prompt_file(path: Path, split: str) -> Path:
    """Hostile texts in prompts, criteria and kinds, which the embedded judge can read all the same."""
    criteria = [
        {
            "name": "red",
            "kind": "<b>[red]colour</b>",
            "text": "<i>Red</i> it is.",
            "check": {"kind": "present", "of": "red"},
        },
        {"name": "n", "kind": "count", "text": "x" * 200, "check": {"kind": "count", "of": "object", "n": 1}},
    ]
    lines = [
        json.dumps({"text": f"{split} {number} {text}", "criteria": criteria})
        for number, text in enumerate(HOSTILE * 4)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole small run with hostile prompts."""
    folder = tmp_path_factory.mktemp("report")
    files = [
        f"prompts.{name}={prompt_file(folder / f'{split}.jsonl', split)}"
        for name, split in (("file", "train"), ("validation_file", "validation"), ("test_file", "test"))
    ]
    config = load_recipe(
        RlRecipe,
        find_recipe("shapes", RECIPES),
        [
            *SMALL,
            f"model={model(folder / 'model')}",
            "prompts.tree=null",
            *files,
            "judge.base_url=http://host/v1",
        ],
    )
    assert run_job(config, folder / "whole").reason == "finished"
    return folder / "whole"


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def unfinished(path: Path, steps: int) -> Path:
    """The run as it was after `steps`: killed while it wrote the next line."""
    (path / "summary.json").unlink()
    (path / "report.html").unlink()
    rows = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(rows[: steps + 1]) + rows[steps + 1][:25])
    return path


def everything_but_pages(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.suffix != ".html"
    }


def test_a_run_ends_with_its_page_which_says_what_the_summary_says(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    held_out = json.loads((run / "summary.json").read_text())["held_out"]
    for value in (held_out["base"], held_out["trained"]):
        assert share(value) in page
    for value in (held_out["gain"], *held_out["gain_interval"]):
        assert signed(value) in page
    assert f"{held_out['n']} pictures of {held_out['prompts']} test prompts" in page
    assert len(page) < 2_000_000


def test_the_page_stands_alone(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert set(re.findall(r'\b(?:src|href)="([^"]{5})', page)) <= {
        "data:",
        "#lear",
        "#kind",
        "#pict",
        "#stri",
        "#guar",
        "#cost",
        "#reci",
    }
    assert "<script" not in page and "@import" not in page and "url(" not in page


def test_texts_of_prompts_and_criteria_are_text(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    for tag in ("<script", "<img src=x", "<b>[red]", "<i>Red", "{{ 49", "</style><style>"):
        assert tag not in page.replace("&#34;", '"')
    assert "&lt;script&gt;" in page and "{{ 7 * 7 }}" in page and "&lt;b&gt;[red]colour&lt;/b&gt;" in page


def test_no_password_of_an_address_reaches_the_page(copy):
    """A recipe with one is refused; a folder from elsewhere may hold it all the same."""
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("http://host/v1", "http://me:secret@host/v1"))
    assert "secret" in config.read_text()
    page = report.write_report(copy).read_text(encoding="utf-8")
    assert "secret" not in page and "***@host/v1" in page


def test_a_page_made_again_is_the_same_and_touches_nothing_else(copy):
    before, page = everything_but_pages(copy), render_report(read_run(copy))
    assert report.write_report(copy).read_text(encoding="utf-8") == page
    assert everything_but_pages(copy) == before


@pytest.mark.parametrize("steps", [0, 1, 6])
def test_a_killed_run_has_a_page_too(copy, steps):
    page = report.write_report(unfinished(copy, steps)).read_text(encoding="utf-8")
    assert f"stopped, step {steps} of 12" in page
    assert "Before and after" not in page
    assert ("test prompts are touched once" if steps else "No step has been trained yet") in page


def test_a_run_at_work_is_told_from_a_killed_one(copy):
    with RunFolder(unfinished(copy, 5)):
        assert read_run(copy).state == "at work, step 5 of 12"
    assert read_run(copy).state == "stopped, step 5 of 12"


def test_a_run_that_a_guard_stopped_says_so(copy):
    summary = json.loads((copy / "summary.json").read_text()) | {"ended": "drift: |v| / |v_ref| is 1.4"}
    (copy / "summary.json").write_text(json.dumps(summary))
    assert "It stopped by itself. Drift: |v| / |v_ref| is 1.4." in render_report(read_run(copy))


def test_a_test_without_any_reward_is_told_as_such(copy):
    summary = json.loads((copy / "summary.json").read_text())
    nothing = dict.fromkeys(("base", "trained", "gain"), math.nan) | {"gain_interval": [math.nan, math.nan]}
    summary["held_out"] |= {**nothing, "n": 0, "by_kind": {}}
    (copy / "summary.json").write_text(json.dumps(summary))
    page = render_report(read_run(copy))
    assert "Reward could not be measured" in page and "nan" not in re.sub(r"data:[^\"]*", "", page).replace("nance", "")


def test_a_kind_that_lost_is_named(copy):
    summary = json.loads((copy / "summary.json").read_text())
    kind = summary["held_out"]["by_kind"]["count"]
    assert "No kind can be shown to have lost" in render_report(read_run(copy))
    kind |= {"gain": -0.2, "gain_interval": [-0.3, -0.1], "change": "worse", "worse_than_margin": True}
    (copy / "summary.json").write_text(json.dumps(summary))
    assert '<strong class="worse">count lost more than 0.03.</strong>' in render_report(read_run(copy))


def test_the_best_and_the_worst_prompts_carry_every_verdict(run):
    record = read_run(run)
    page, base = render_report(record), record.test("base")
    shown = {one.group for one in base if one.picture}
    assert page.count('<article class="card">') >= len(shown) and len(shown) >= 12
    verdicts = len(re.findall(r'<i class="verdict (?:yes|no|error)"', page))
    cards = page.count('<article class="card">')
    assert verdicts == cards * 2 * 2 * 2, "two criteria, two sides, two pictures a card"


def test_a_verdict_that_the_judge_failed_to_give_is_no_no(copy):
    file = folder_of_test(copy, "trained") / "transcripts.jsonl"
    file.write_text(
        re.sub(r'"value": [01], "status": "ok"', '"value": null, "status": "timeout"', file.read_text(), count=1)
    )
    page = render_report(read_run(copy))
    assert 1 <= page.count('aria-label="error"') <= 2, "once a card that shows the prompt"


def test_the_same_command_brings_back_a_page_that_is_gone(copy):
    (copy / "report.html").unlink()
    config = read_recipe(RlRecipe, (copy / "config.yaml").read_text(), "config.yaml")
    assert run_job(config, copy).reason == "finished before"
    assert (copy / "report.html").is_file()


def test_folders_that_are_no_runs_are_refused_with_a_fix(tmp_path, copy):
    with pytest.raises(RunProblem, match=r"there is no run folder .*copi \(did you mean 'copy'\?\)"):
        read_run(tmp_path / "copi")
    with pytest.raises(RunProblem, match=r"is no run folder: it has no config\.yaml"):
        read_run(tmp_path)
    (copy / "metrics.jsonl").write_text("")
    with pytest.raises(RunProblem, match="its first validation is still to come"):
        read_run(copy)


def test_a_summary_of_another_version_is_refused_by_name(copy):
    summary = json.loads((copy / "summary.json").read_text())
    del summary["held_out"]["by_kind"]["count"]["gain_interval"]
    (copy / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(RunProblem, match=r"summary.json was not written by this version .* lacks 'gain_interval'"):
        read_run(copy)


def command(*words):
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_the_command_of_one_run(copy):
    (copy / "report.html").unlink()
    shown = command(copy)
    assert shown.exit_code == 0 and "never trained on" in " ".join(shown.output.split())
    assert (copy / "report.html").is_file()
    assert json.loads(command(copy, "--json").stdout) == json.loads((copy / "summary.json").read_text())
    so_far = json.loads(command(unfinished(copy, 8), "--json", "--out", copy.parent / "page.html").stdout)
    assert so_far["steps"] == 8 and [row["step"] for row in so_far["validations"]] == [0, 4, 8]
    assert (copy.parent / "page.html").is_file() and not (copy / "report.html").exists()


def test_the_command_of_several_runs(run, copy):
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("seed: 0", "seed: 7", 1))
    shown = command("--compare", run, copy, "--out", copy.parent / "both.html")
    assert shown.exit_code == 0, shown.output
    page = (copy.parent / "both.html").read_text(encoding="utf-8")
    assert "<code>seed</code>" in page and "<code>steps</code>" not in page
    found = json.loads(command("--compare", run, copy, "--json", "--out", copy.parent / "both.html").stdout)
    assert found["differences"] == {"seed": [0, 7]}
    assert [one["name"] for one in found["runs"]] == ["whole", "copy"]
    assert found["runs"][0]["test"] == json.loads((run / "summary.json").read_text())["held_out"]


def test_comparisons_that_make_no_sense_are_refused(run):
    for words, problem in (
        ((run, run), "add --compare"),
        (("--compare", run), "at least two"),
        (("--compare", run, run), "given twice"),
    ):
        shown = command(*words)
        assert shown.exit_code == 1 and problem in shown.output


def test_runs_without_a_test_can_be_compared(run, copy):
    comparison = compare_runs([read_run(run), read_run(unfinished(copy, 6))])
    assert [one.test is None for one in comparison.runs] == [False, True]
    assert report.write_comparison([read_run(run), read_run(copy)], comparison, copy.parent / "page.html").is_file()


def test_who_is_ahead_is_said_only_as_far_as_intervals_carry(run):
    record = read_run(run)
    pages = []
    for gain in (0.02, 0.2):
        other = json.loads(json.dumps(record.summary))
        other["held_out"] |= {"gain": gain, "gain_interval": [gain - 0.03, gain + 0.03]}
        mine = json.loads(json.dumps(record.summary))
        mine["held_out"] |= {"gain": 0.0, "gain_interval": [-0.03, 0.03]}
        runs = [dataclasses.replace(record, summary=mine), dataclasses.replace(record, summary=other, path=run.parent)]
        file = run.parent / "ahead.html"
        pages.append(report.write_comparison(runs, compare_runs(runs), file).read_text(encoding="utf-8"))
    assert "Their intervals overlap" in pages[0] and "Their intervals do not overlap" in pages[1]


def test_terminal_tables_show_brackets_as_they_are(run, copy):
    records = [read_run(run), read_run(copy.rename(copy.parent / "[red]copy"))]
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(held_out_table(records[0].summary), learning_table(records[0]))
    console.print(comparison_table(compare_runs(records)))
    text = console.export_text()
    low, high = records[0].summary["held_out"]["gain_interval"]
    assert f"[{signed(low)}, {signed(high)}]" in text and "[red]copy" in text and text.count("<b>[red]colour</b>") == 3


def test_words():
    assert (signed(0.0871), signed(-0.0123), signed(-0.0001), share(float("nan"))) == (
        "+0.087",
        "\N{MINUS SIGN}0.012",
        "0.000",
        "\N{EN DASH}",
    )
    assert [duration(seconds) for seconds in (41.6, 423, 7510)] == ["42 s", "7 min 3 s", "2 h 5 min"]
    assert [dollars(value) for value in (0, None, 0.001, 1234.5)] == ["$0", "unknown", "under $0.01", "$1,234.50"]
    assert (percent(0.001), percent(0.0), percent(0.516), count(12345)) == ("< 1 %", "0 %", "52 %", "12,345")


# What text is written in, on what, in either colour scheme.
TEXT, GROUNDS = (
    ("ink", "soft", "faint", "accent", "bad", *(f"run{number}" for number in range(1, 7))),
    ("paper", "raised"),
)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, WCAG 2.2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme):
    css = (Path(report.__file__).parent / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{\s*(--paper: #\w{6};.*?)\}", css, re.S)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", light if scheme == "light" else dark))
    for text in TEXT:
        for ground in GROUNDS:
            bright, dim = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            needed = 3.0 if text.startswith("run") else 4.5
            assert (bright + 0.05) / (dim + 0.05) >= needed, f"{scheme}: {text} on {ground}"


def faults(browser: Browser, width: int) -> list[str]:
    """What is wrong with the page that is open: too wide, pictures missing, complaints of the console."""
    found = browser.complaints()
    if (scroll := browser.value("document.documentElement.scrollWidth")) > width:
        found.append(f"{scroll} wide")
    if missing := browser.value("[...document.images].filter(image => !image.naturalWidth).length"):
        found.append(f"{missing} pictures missing")
    return found


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_in_a_browser(browser, run, width, dark):
    browser.open(run / "report.html", width=width, dark=dark)
    assert browser.value("document.images.length") > 60
    assert not faults(browser, width)
    browser.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert not faults(browser, width)
    assert browser.value("document.title").startswith("whole")
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 384) == dark


@pytest.mark.parametrize("width", [390, 1440])
def test_a_comparison_in_a_browser(browser, run, copy, width):
    records = [read_run(run), read_run(copy)]
    browser.open(report.write_comparison(records, compare_runs(records), copy.parent / "both.html"), width=width)
    assert browser.value("document.querySelectorAll('svg').length") == 2
    assert not faults(browser, width)


def test_values_can_be_read_off_a_curve(browser, run):
    browser.open(run / "report.html", width=390)
    left, top, wide = browser.value(
        "(() => { const plot = document.querySelector('.plot'); plot.scrollIntoView({behavior: 'instant'});"
        "const box = plot.getBoundingClientRect(); return [box.left, box.top, box.width] })()"
    )
    for part in (0.01, 0.5, 0.99):
        browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=left + part * wide, y=top + 60)
        shown = (
            "[...document.querySelectorAll('.reading > div')].filter(one => one.offsetParent).map(one => one.innerText)"
        )
        (text,) = browser.value(shown)
        assert re.search(r"step \d+\s+validation \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", text)
        assert not faults(browser, 390)


@pytest.mark.parametrize(
    "fault, name",
    [
        ("<div style='width: 2000px'>.</div>", "2018 wide"),
        ("<img src='data:image/png;base64,AAAA' alt=''>", "1 pictures missing"),
        ("<img src='https://example.org/x.png' alt=''>", "Content Security Policy"),
        ("<script>1</script>", "Content Security Policy"),
    ],
)
def test_planted_faults_are_seen(browser, run, tmp_path, fault, name):
    page = (run / "report.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(page.replace("<main>", f"<main>{fault}"), encoding="utf-8")
    browser.open(tmp_path / "page.html", width=390)
    assert any(name in found for found in faults(browser, 390)), faults(browser, 390)
