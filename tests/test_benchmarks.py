"""The benchmarks run and say what they measured; no time fails a test."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from base_model import linear
from base_model.transformer import LensTransformer
from benchmarks import full_size, judge, rendered_text, rubrics, transformer
from benchmarks.flops import forward_flops
from benchmarks.random_lens import random_inputs, random_model
from pipelines.data.text.order import Order, prepare
from pipelines.data.text.reading import Reader
from tests.typefaces import FONTS

SMALL = {"num_layers": 3, "num_attention_heads": 2, "enc_hidden_dim": 24}


@pytest.fixture
def few_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_transformer_benchmark_prints_and_writes_its_table(tmp_path, capsys, few_threads):
    file = tmp_path / "rows.json"
    transformer.main(quick=True, json=file, threads=1)
    rows = json.loads(file.read_text())["rows"]
    assert [row["workload"] for row in rows] == list(transformer.WORKLOADS)
    assert all(row["plain s"] > 0 and row["eager s"] > 0 for row in rows) and rows[0]["compiled s"] > 0
    assert "ragged text, training" in capsys.readouterr().out


def test_the_cleaning_benchmark_prints_and_writes_its_tables(tmp_path, few_threads):
    pytest.importorskip("cleanvision")
    pytest.importorskip("imagehash")
    from benchmarks import clean

    clean.main(quick=True, json=tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(rows) == 5 and all(row["images/s per core"] > 0 for row in rows)
    memory = json.loads((tmp_path / "rows-memory.json").read_text())["rows"]
    assert [row["images"] for row in memory] == ["100", "400"] and all(row["peak MiB"] > 50 for row in memory)


def test_the_benchmark_of_rendered_text_prints_and_writes_its_table(tmp_path, few_threads):
    rendered_text.main(quick=True, json=tmp_path / "rows.json", fonts=[FONTS])
    rows = {row["script"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert {"latin", "cyrillic", "greek"} <= set(rows) and all(row["drawn / s"] > 0 for row in rows.values())
    assert float(rows["latin"]["read back"].rstrip("%")) >= 90
    assert rows["greek"]["read back"] == "not checked"


@pytest.mark.slow
def test_latin_text_is_read_back_at_the_default_settings():
    stock = prepare(Order(Path(), 0, scripts=("latin",), fonts=(FONTS,)))
    row = rendered_text.measure(stock, Reader(), "latin", 80)
    assert int(row["asked"]) > 500 and float(row["read back"].rstrip("%")) >= 97


def test_the_full_size_run_goes_the_same_way_on_a_cpu(monkeypatch):
    eagerly = LensTransformer.compile_blocks
    monkeypatch.setattr(LensTransformer, "compile_blocks", lambda self: eagerly(self, backend="eager"))
    rows = full_size.measure(full_size.SCALES["quick"], torch.device("cpu"), torch.bfloat16)
    assert len(rows) == 3 + 3 + 2 + 1
    assert all(row["seconds"] > 0 for row in rows)


def test_a_contestant_that_computes_something_else_is_not_timed():
    model = random_model(**SMALL)
    inputs = random_inputs(model, (4, 4), (5, 2))
    other = full_size.twin(model)
    contestants = {"plain": transformer.PlainLens(model), "eager": other}
    transformer.check_equal(contestants, inputs)
    other.norm_out.linear.bias = torch.nn.Parameter(other.norm_out.linear.bias + 0.01)
    with pytest.raises(AssertionError):
        transformer.check_equal(contestants, inputs)


@pytest.mark.parametrize("lengths", [(5, 5), (0, 4, 9), (0, 0)])
def test_flops_are_those_that_torch_counts(monkeypatch, lengths):
    monkeypatch.setattr(linear, "HAS_ONEDNN", False)
    model = random_model(**SMALL)
    inputs = random_inputs(model, (4, 6), lengths)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*inputs)
    assert forward_flops(model, 24, lengths) == pytest.approx(counter.get_total_flops(), rel=1e-9)


def test_a_forward_of_the_released_size_at_1024_is_about_17_tflop():
    with torch.device("meta"):
        model = LensTransformer()
    assert forward_flops(model, 4096, (35,)) == pytest.approx(16.265e12, rel=1e-4)
    assert forward_flops(model, 4096, (256,)) == pytest.approx(17.411e12, rel=1e-4)


def test_the_judge_benchmark_prints_what_each_client_took(tmp_path, capsys, monkeypatch):
    """On a small endpoint. That the ledger equals the server's count, the benchmark sees to itself."""
    for name, value in {"SLOTS": 16, "MEDIAN": 0.02, "QUICK": judge.Scale(8, 40, 4), "MEAN": 0.0227}.items():
        monkeypatch.setattr(judge, name, value)
    monkeypatch.setattr(judge, "CLIENTS", {k: (*v[:2], min(v[2], 16)) for k, v in judge.CLIENTS.items()})
    judge.main(quick=True, json=tmp_path / "rows.json")
    rows = {row["client"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert list(rows) == list(judge.CLIENTS)
    per_criterion, per_image = rows["ours, per_criterion"], rows["ours, per_image"]
    assert per_criterion["requests a step"] == 1152 * 11 and per_image["requests a step"] == 1152
    assert per_criterion["GB uploaded a step"] > 8 * per_image["GB uploaded a step"]
    assert per_criterion["$ a step"] == pytest.approx(rows["bare aiohttp loop"]["$ a step"], rel=0.01)
    assert per_criterion["$ a step"] > 3 * per_image["$ a step"] > 0
    assert all(row["requests/s"] > 0 for row in rows.values())
    assert "ThreadPoolExecutor(8)" in capsys.readouterr().out


def test_the_benchmark_of_rubrics_prints_and_writes_its_table(tmp_path, capsys, few_threads):
    file = tmp_path / "rows.json"
    rubrics.main(quick=True, json=file)
    rows = {row["what"]: row for row in json.loads(file.read_text())["rows"]}
    assert {"judge messages", "criteria of prompts", "lists doubled 60 times, refused"} <= rows.keys()
    assert all(row["seconds"] > 0 for row in rows.values())
    assert "judge messages" in capsys.readouterr().out
