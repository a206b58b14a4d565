"""The feature cache: equal to the encoder to the bit, resumable, and plain about what does not fit."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from base_model.feature_cache import TEXTS_PER_SHARD, FeatureCache, cache_features, files_identity
from base_model.files import ModelProblem
from base_model.lens import LensGenerator
from base_model.text_template import TextTemplate
from lens_core.recipes import RecipeProblem, find_recipe, load_recipe
from lens_rl.job import check_run, run_job
from lens_rl.models import open_generator
from lens_rl.recipe import RECIPES, RlRecipe
from pipelines.cli import app
from pipelines.features import texts_of_recipe
from tests.e2e.runs import SMALL, assert_equal, state
from tests.tiny import tiny_generator

TEXTS = [
    "one red circle",
    "two blue squares on a white background",
    "مربع أزرق",
    "两个蓝色的正方形",
    "a\nb <end>",
    "🟥",
]
MANY = [f"one red circle and {i} squares" for i in range(TEXTS_PER_SHARD + 9)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "lens"
    tiny_generator().save(folder)
    return folder


@pytest.fixture(scope="module")
def bare(model, tmp_path_factory):
    """The same checkpoint without text encoder and tokenizer: what a machine that trains from a cache needs."""
    folder = shutil.copytree(model, tmp_path_factory.mktemp("bare") / "lens")
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "features"
    cache_features(path, model, TEXTS)
    return path


@pytest.fixture
def cache(made, tmp_path):
    return shutil.copytree(made, tmp_path / "features")


def shards(path):
    return sorted(path.glob("shard-*"))


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_cached_features_are_the_encoders_to_the_bit(model, bare, made):
    with_encoder, with_cache = LensGenerator.load(model), LensGenerator.load(bare, features=made)
    for text in TEXTS:
        ours, theirs = with_cache.encode([text]), with_encoder.encode([text])
        assert torch.equal(ours.text_BLFD, theirs.text_BLFD) and torch.equal(ours.mask_BL, theirs.mask_BL)
    together, each = with_cache.encode(TEXTS), [with_encoder.encode([text]) for text in TEXTS]
    assert torch.equal(together.text_BLFD, with_encoder.collate(each).text_BLFD)
    assert together.mask_BL.sum(dim=1).tolist() == [part.mask_BL.shape[1] for part in each]
    assert with_cache.identity() == with_encoder.identity()
    assert with_cache.unconditional(2).text_BLFD.shape == with_encoder.unconditional(2).text_BLFD.shape
    assert LensGenerator.load(bare, dtype=torch.bfloat16, features=made).encode(TEXTS).text_BLFD.dtype == torch.bfloat16


def test_an_interrupted_job_goes_on_where_it_was(model, tmp_path):
    def stop_late(done, total, text):
        if done == TEXTS_PER_SHARD + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_features(tmp_path / "a", model, MANY, watch=stop_late)
    assert FeatureCache(tmp_path / "a").missing(MANY) == MANY[TEXTS_PER_SHARD:]

    seen = []
    cache_features(tmp_path / "a", model, MANY, watch=lambda done, total, text: seen.append((done, total, text)))
    assert [text for _, _, text in seen] == MANY[TEXTS_PER_SHARD:] and seen[-1][:2] == (len(MANY), len(MANY))
    cache_features(tmp_path / "b", model, MANY)
    assert contents(tmp_path / "a") == contents(tmp_path / "b"), "no trace of the interruption"

    seen.clear()
    again, too_long = cache_features(tmp_path / "a", model, MANY[::-1], watch=lambda *step: seen.append(step))
    assert len(again) == len(MANY) and not too_long and not seen, "what is there is not encoded again"


def test_a_missing_text_is_named_with_the_command_that_adds_it(model, made):
    generator = LensGenerator.load(model, features=made)
    with pytest.raises(ModelProblem) as problem:
        generator.encode(["one red circle", "one red circle ", ""])
    assert "2 texts are not in this feature cache, for example 'one red circle '" in str(problem.value)
    assert f"`lens-rl features cache --prompts FILE --model {model} --out {made}` adds them" in str(problem.value)


def test_a_cache_of_another_encoder_is_refused(model, made, tmp_path):
    other = tmp_path / "other"
    tiny_generator(seed=1).save(other)
    with pytest.raises(ModelProblem, match="made by another text encoder or tokenizer"):
        LensGenerator.load(other, features=made)
    with pytest.raises(ModelProblem, match="made by another text encoder or tokenizer"):
        cache_features(made, other, ["one"])
    with pytest.raises(ModelProblem, match=r"it holds the blocks \[0, 1\], the transformer reads \[5, 11\]"):
        FeatureCache.for_model(made, model, (5, 11))


def test_a_cache_of_another_template_is_refused(model, made, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    TextTemplate(prefix="", suffix="<end>", date="", truncation="prompt", max_length=400).save(other / "tokenizer")
    with pytest.raises(ModelProblem, match="made with another template: max_length, truncation"):
        LensGenerator.load(other, features=made)


def test_a_weight_more_or_less_is_another_encoder(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    assert files_identity(other) == files_identity(model)
    weights = other / "text_encoder/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert files_identity(other) != files_identity(model)


@pytest.mark.parametrize("damage", ["torn", "flipped", "not safetensors"])
def test_a_damaged_shard_is_named_and_can_be_made_again(model, cache, damage):
    before, (shard,) = contents(cache), shards(cache)
    data = shard.read_bytes()
    shard.write_bytes(
        {"torn": data[:-50], "flipped": data[:-1] + bytes([data[-1] ^ 1]), "not safetensors": b"x"}[damage]
    )
    with pytest.raises(ModelProblem) as problem:
        FeatureCache(cache).encode(TEXTS)
    assert f"{shard}: a damaged shard" in str(problem.value) and "delete it and start `lens-rl" in str(problem.value)
    shard.unlink()
    cache_features(cache, model, TEXTS)
    assert contents(cache) == before


def test_what_is_no_cache_is_named(cache, tmp_path):
    with pytest.raises(ModelProblem, match="there is no feature cache; `lens-rl features cache"):
        FeatureCache(tmp_path / "nowhere")
    origin = cache / "cache.json"
    found = json.loads(origin.read_text())
    for wrong, said in (
        ({"layer": []}, r"cache\.json: its fields must be encoder, files, layers"),
        ({"template": found["template"] | {"date": 3}}, r"cache\.json: date is 3, not text"),
        ({"template": []}, r"cache\.json: template must be an object"),
    ):
        origin.write_text(json.dumps(found | wrong))
        with pytest.raises(ModelProblem, match=said):
            FeatureCache(cache)


def test_a_generator_without_its_encoder_is_not_saved(bare, made, tmp_path):
    with pytest.raises(ModelProblem, match="without its text encoder"):
        LensGenerator.load(bare, features=made).save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_features_that_are_not_finite_are_not_written(model, tmp_path):
    broken = shutil.copytree(model, tmp_path / "broken")
    encoder = LensGenerator.load(broken).text_encoder
    with torch.no_grad():
        encoder.model.embed_tokens.weight[5] = torch.nan
    encoder.save(broken / "text_encoder", broken / "tokenizer")
    word = encoder.tokenizer.convert_ids_to_tokens(5)
    with pytest.raises(ModelProblem, match=f"not finite for '{word}'"):
        cache_features(tmp_path / "cache", broken, [word])
    assert not shards(tmp_path / "cache")


def recipe(model, *overrides):
    values = [*SMALL, "steps=2", "evaluation.every=1", "save_every=1", f"model={model}", *overrides]
    return load_recipe(RlRecipe, find_recipe("shapes", RECIPES), values)


def test_rl_with_cached_features_equals_rl_with_the_encoder(model, bare, tmp_path):
    """To the bit: weights of all roles, optimiser, metrics, verdicts, summary."""
    cache_features(tmp_path / "features", model, texts_of_recipe(recipe(model)))
    run_job(recipe(model), tmp_path / "encoder")
    run_job(recipe(bare, f"features={tmp_path / 'features'}"), tmp_path / "cached")
    assert_equal(state(tmp_path / "encoder"), state(tmp_path / "cached"))


def test_rl_refuses_a_cache_that_lacks_its_prompts(model, made, tmp_path):
    with pytest.raises(RecipeProblem, match=r"features: .* lacks 108 of the run's prompts, .* --recipe RECIPE --out"):
        run_job(recipe(model, f"features={made}"), tmp_path / "run")
    _, problems = check_run(recipe(model, f"features={made}"))
    assert any("lacks 108 of the run's prompts" in problem for problem in problems)
    with pytest.raises(RecipeProblem, match="features: a feature cache holds features of Lens"):
        open_generator("python: own.py:Mine", features=str(made))


def command(*arguments):
    done = CliRunner().invoke(app, ["features", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_caches_and_shows(model, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "features"
    prompts.write_text("\n".join([*TEXTS[:4], "one red circle"]).replace("one red circle", "a red circle", 1))
    code, text, _ = command("cache", "--prompts", prompts, "--model", model, "--out", out, "--json")
    summary = json.loads(text)
    assert code == 0 and summary["added"] == summary["texts"] == 5 and summary["too_long"] == []
    assert summary["layers"] == [0, 1] and summary["width"] == 32 and summary["dtype"] == "F32"
    features = summary["tokens"] * 2 * 32 * 4
    assert features < summary["bytes"] < features + 4096

    prompts.write_text("a blue square\n" + "red " * 2000)
    code, text, _ = command("cache", "--prompts", prompts, "--model", model, "--out", out, "--json")
    summary = json.loads(text)
    assert (
        code == 0
        and summary["added"] == 2
        and summary["texts"] == 7
        and summary["too_long"] == [("red " * 2000).strip()]
    )
    code, text, _ = command("show", out, "--json")
    assert code == 0 and json.loads(text).items() <= summary.items()
    code, text, _ = command("show", out)
    assert code == 0 and "texts" in text and "blocks [0, 1] x 32, F32" in text


def test_the_command_takes_the_prompts_of_a_recipe(model, tmp_path):
    sets = [part for value in (*SMALL, f"model={model}") for part in ("--set", value)]
    code, text, _ = command("cache", "--recipe", "shapes", *sets, "--out", tmp_path / "features", "--json")
    assert code == 0 and json.loads(text)["texts"] == 40 + 34 + 34


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "give either --prompts FILE"),
        (("--prompts", "p.txt"), "--model: name the model folder"),
        (("--prompts", "p.txt", "--model", "nowhere"), "--model: there is no folder nowhere"),
        (("--prompts", "p.txt", "--model", "python: a.py:B"), "made with a Lens folder"),
        (("--prompts", "p.txt", "--model", "shapes", "--set", "seed=1"), "--set: there is no recipe"),
        (("--prompts", "missing.txt", "--model", "nowhere"), "missing.txt cannot be read"),
    ],
)
def test_wrong_arguments_are_named(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a red circle\n")
    code, _, errors = command("cache", "--out", "features", *arguments)
    assert code == 1 and said in errors
    assert not (tmp_path / "features").exists()
