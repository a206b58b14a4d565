"""The plan's memory is that of the run, and checkpointing changes it without changing what is learned."""

import pytest
import torch
from safetensors.torch import load_file

from lens_core.recipes import RecipeProblem, find_recipe, load_recipe
from lens_rl.job import run_job
from lens_rl.plan import make_plan
from lens_rl.recipe import RECIPES, RlRecipe
from tests.e2e.runs import SMALL, model
from tests.tiny import tiny_generator


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return model(tmp_path_factory.mktemp("start") / "model")


def recipe(start, *overrides) -> RlRecipe:
    return load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [*SMALL, f"model={start}", *overrides])


def test_weights_are_those_of_every_role_and_the_optimiser(start):
    count = sum(parameter.numel() for parameter in tiny_generator().transformer.parameters())
    full = make_plan(recipe(start, "policy.kind=full"), 3.0)
    assert full.weights_gib == (4 + 1 + 2) * 4 * count / 2**30
    lora = make_plan(recipe(start, "policy.kind=lora", "policy.rank=2"), 3.0)
    adapters = 2 * 2 * 2 * ((32 + 96) + (32 + 32))  # blocks, streams, rank, ends of both projections
    assert lora.weights_gib == (4 * count + (3 + 1 + 2) * 4 * adapters) / 2**30


def test_more_and_larger_pictures_take_more_and_checkpointing_less(start):
    def activations(*overrides):
        return make_plan(recipe(start, *overrides), 3.0).activations_gib

    few, many = activations("rollout.batch_size=2"), activations("rollout.batch_size=4")
    assert many > 1.8 * few
    assert activations("rollout.batch_size=2", "rollout.sizes=[[20, 20], [40, 40]]") > 1.5 * few
    assert activations("rollout.batch_size=4", "gradient_checkpointing=true") < many


def test_a_model_that_is_not_there_has_no_memory_and_a_broken_one_is_named(start, tmp_path):
    plan = make_plan(recipe(tmp_path / "nowhere"), 3.0)
    assert plan.weights_gib is None and plan.activations_gib is None
    broken = model(tmp_path / "broken")
    (broken / "transformer/config.json").write_text('{"num_layers": 2, "attention_head_dim": 7}')
    with pytest.raises(RecipeProblem, match=r"does not describe a Lens transformer: .*axes_dims_rope"):
        make_plan(recipe(broken), 3.0)


def test_checkpointing_does_not_change_what_is_learned(start, tmp_path):
    learned = []
    for checkpointing in ("true", "false"):
        config = recipe(start, "steps=2", "prompts.test=2", "prompts.validation=2", "policy.kind=lora",
                        f"gradient_checkpointing={checkpointing}")  # fmt: skip
        run_job(config, tmp_path / checkpointing)
        learned.append(load_file(tmp_path / checkpointing / "checkpoints/step-000002/training/roles.safetensors"))
    assert learned[0].keys() == learned[1].keys()
    for key, tensor in learned[0].items():
        torch.testing.assert_close(tensor, learned[1][key], atol=1e-6, rtol=1e-5)
