"""Export: whatever the format, what is loaded from it says what the run's best checkpoint says."""

import shutil

import pytest
import torch
from typer.testing import CliRunner

from base_model.checkpoint import stored_transformer
from base_model.files import ModelProblem
from base_model.lens import LensGenerator
from base_model.lora_files import COMFYUI_FILE, DIFFUSERS_FILE, read_lora
from lens_core.recipes import RecipeProblem, dump_recipe, find_recipe, load_recipe
from lens_core.runs import RunFolder
from lens_rl import checkpoint
from lens_rl.job import run_job
from lens_rl.models import Source, open_generator, resolve
from lens_rl.policy import make_policy
from lens_rl.recipe import RECIPES, RlRecipe
from pipelines.cli import app
from pipelines.export import export
from tests.e2e.runs import SMALL
from tests.tiny import tiny_generator

SIZE = (16, 8)
BEST, LAST = 3, 6


def recipe(model, *overrides) -> RlRecipe:
    return load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [*SMALL, f"model={model}", *overrides])


def make_run(folder, kind):
    """A run folder of two real checkpoints, the earlier one the better."""
    generator = tiny_generator()
    generator.save(folder / "base")
    policy = make_policy(generator.trainable, generator.lora_targets, kind=kind, rank=4, alpha=8, seed=0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    with RunFolder(folder / "run") as run:
        run.keep_config(dump_recipe(recipe(folder / "base", f"policy.kind={kind}")))
        for step, reward in ((BEST, 0.7), (LAST, 0.4)):
            for _ in range(3):
                predict(generator).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            policy.blend("ema", 0.0)
            run.log({"step": step, "validation/reward": reward})
            checkpoint.save(run, step, policy, optimizer, generator)
    return folder


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("lora"), "lora")


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("full"), "full")


@pytest.fixture(params=["lora_run", "full_run"])
def made(request):
    return request.getfixturevalue(request.param)


def predict(generator, transformer=None):
    features, sigma_B = generator.encode(["a red circle"]), torch.tensor([0.6])
    call = (features.text_BLFD, sigma_B, (4, 2), features.mask_BL)
    return (transformer or generator.trainable)(generator.noise(SIZE, [1]), *call)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_every_format_says_what_the_best_checkpoint_says(made, tmp_path):
    base, trained = open_generator(str(made / "base")), open_generator(str(made / "run"))
    expected = predict(trained)
    assert (expected - predict(base)).abs().max() > 1e-3
    assert (expected - predict(open_generator(str(made / "base")), _at(made, LAST))).abs().max() > 1e-4

    run = str(made / "run")
    export(run, "diffusers", tmp_path / "whole")
    close(predict(LensGenerator.load(tmp_path / "whole")), expected)
    export(run, "merged", tmp_path / "merged")
    close(predict(base, type(base.transformer).from_pretrained(tmp_path / "merged")), expected)
    assert export(run, "single-file", tmp_path / "one.safetensors") == [tmp_path / "one.safetensors"]
    close(predict(LensGenerator.load(made / "base", transformer=tmp_path / "one.safetensors")), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "one.safetensors", "whole"]


def _at(made, step):
    source = resolve(str(made / "run"), step)
    if source.loras:
        generator = open_generator(str(made / "base"))
        generator.load_loras(source.loras)
        return generator.transformer
    return stored_transformer(made / "base", source.transformer).load(torch.float32)


@torch.no_grad()
def test_a_step_may_be_chosen(made, tmp_path):
    export(str(made / "run"), "merged", tmp_path / "last", step=LAST)
    base = open_generator(str(made / "base"))
    close(predict(base, type(base.transformer).from_pretrained(tmp_path / "last")), predict(base, _at(made, LAST)))
    with pytest.raises(RecipeProblem, match="no checkpoint of step 5; it has 3, 6"):
        export(str(made / "run"), "merged", tmp_path / "none", step=5)


@torch.no_grad()
def test_the_lora_loads_in_diffusers_and_in_comfyui(lora_run, tmp_path):
    files = export(str(lora_run / "run"), "lora", tmp_path / "lora")
    assert [file.name for file in files] == [COMFYUI_FILE, DIFFUSERS_FILE]
    expected = predict(open_generator(str(lora_run / "run")))
    fresh = open_generator(str(lora_run / "base"))
    fresh.transformer.load_lora_adapter(tmp_path / "lora", weight_name=DIFFUSERS_FILE)
    close(predict(fresh), expected)
    close(predict(open_generator(f"{lora_run / 'base'} + {tmp_path / 'lora' / COMFYUI_FILE}")), expected)


def test_everything_else_of_a_model_folder_is_copied_to_the_bit(lora_run, tmp_path):
    export(str(lora_run / "run"), "diffusers", tmp_path / "whole")
    for file in (lora_run / "base").rglob("*"):
        name = file.relative_to(lora_run / "base")
        if file.is_file() and name.parts[0] != "transformer":
            assert (tmp_path / "whole" / name).read_bytes() == file.read_bytes()


@torch.no_grad()
def test_bf16_is_rounded_after_the_lora_is_folded_in(lora_run, tmp_path):
    export(str(lora_run / "run"), "single-file", tmp_path / "low.safetensors", dtype="bf16")
    low = stored_transformer(lora_run / "base", tmp_path / "low.safetensors").load(None)
    trained = open_generator(str(lora_run / "run")).transformer
    assert all(torch.equal(value, trained.state_dict()[key].bfloat16()) for key, value in low.state_dict().items())


@torch.no_grad()
def test_any_model_can_be_exported_and_weights_count(lora_run, tmp_path):
    export(str(lora_run / "run"), "lora", tmp_path / "lora")
    half = f"{lora_run / 'base'} + {tmp_path / 'lora' / DIFFUSERS_FILE} * 0.5"
    export(half, "merged", tmp_path / "half")
    base = open_generator(str(lora_run / "base"))
    expected = predict(open_generator(half))
    close(predict(base, type(base.transformer).from_pretrained(tmp_path / "half")), expected)
    export(half, "lora", tmp_path / "again")
    alphas = read_lora(tmp_path / "lora" / DIFFUSERS_FILE).alphas
    assert read_lora(tmp_path / "again" / DIFFUSERS_FILE).alphas == {layer: a / 2 for layer, a in alphas.items()}
    close(predict(open_generator(f"{lora_run / 'base'} + {tmp_path / 'again'}")), expected)


def test_files_are_laid_over_in_order(made, lora_run, tmp_path):
    export(str(lora_run / "run"), "lora", tmp_path / "lora")
    export(str(made / "run"), "single-file", tmp_path / "one.safetensors")
    lora, one, base = tmp_path / "lora" / COMFYUI_FILE, tmp_path / "one.safetensors", str(made / "base")
    assert resolve(base) == Source(base)
    assert resolve(f"{base} + {lora} * 0.5 + {lora}") == Source(base, None, ((lora, 0.5), (lora, 1.0)))
    assert resolve(f"{base} + {lora} + {one} + {lora} * -1") == Source(base, one, ((lora, -1.0),))
    assert resolve(f"{made / 'run'} + {one}") == Source(base, one)


def test_what_cannot_be_laid_over_is_named(lora_run, tmp_path):
    base = lora_run / "base"
    transformer, vae = (base / part / "diffusion_pytorch_model.safetensors" for part in ("transformer", "vae"))
    for overlay, said in {
        f"{transformer} * 0.5": "is a whole transformer; only a LoRA has a weight",
        f"{vae}": "is an autoencoder; a Lens transformer or a LoRA can be added",
        f"{tmp_path / 'nothing.safetensors'}": "there is no file .*nothing.safetensors",
        f"{transformer} * much": "write a LoRA and its weight as FILE",
        f"{base / 'model_index.json'}": "it is a text file",
    }.items():
        with pytest.raises(RecipeProblem, match=said):
            resolve(f"{base} + {overlay}")


def test_a_run_starts_from_a_lora(lora_run, tmp_path):
    """What the run calls its start is the base with the LoRA in it."""
    export(str(lora_run / "run"), "lora", tmp_path / "lora")
    model = f"{lora_run / 'base'} + {tmp_path / 'lora' / DIFFUSERS_FILE}"
    config = recipe(model, "steps=1", "policy.kind=lora", "policy.rank=2", "prompts.test=2", "prompts.validation=2")
    assert run_job(config, tmp_path / "run").reason == "finished"
    trained, start = resolve(str(tmp_path / "run")), resolve(model)
    assert trained.loras[: len(start.loras)] == start.loras and len(trained.loras) == len(start.loras) + 1
    assert export(str(tmp_path / "run"), "merged", tmp_path / "merged")


@pytest.mark.parametrize(
    "format, out, said",
    [
        ("comfyui", "new", "unknown; there are diffusers, lora, merged, single-file"),
        ("singlefile", "new", r"did you mean 'single-file'\?"),
        ("single-file", "new", r"one file has the ending \.safetensors"),
        ("merged", "there", "is there already"),
    ],
)
def test_a_wrong_wish_is_refused_before_any_work(tmp_path, format, out, said):
    (tmp_path / "there").mkdir()
    with pytest.raises(RecipeProblem, match=said):
        export("no such run", format, tmp_path / out)


def test_a_broken_run_leaves_nothing_behind(made, tmp_path):
    broken = shutil.copytree(made, tmp_path / "broken")
    (broken / "run/config.yaml").write_text((made / "run/config.yaml").read_text().replace(str(made), str(broken)))
    for file in (broken / "run/checkpoints").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ModelProblem, match="not a whole safetensors file"):
        export(str(broken / "run"), "merged", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


def test_a_full_run_has_no_lora(full_run, tmp_path):
    with pytest.raises(RecipeProblem, match="has no LoRA, all of its weights are its own; take merged"):
        export(str(full_run / "run"), "lora", tmp_path / "out")


def test_the_command_prints_the_files(lora_run, tmp_path):
    done = CliRunner().invoke(app, ["export", str(lora_run / "run"), "--format", "lora", "--out", str(tmp_path / "x")])
    assert done.exit_code == 0, done.output
    assert done.output.split() == [str(tmp_path / "x" / COMFYUI_FILE), str(tmp_path / "x" / DIFFUSERS_FILE)]
    again = CliRunner().invoke(app, ["export", str(lora_run / "run"), "--format", "lora", "--out", str(tmp_path / "x")])
    assert again.exit_code == 1
