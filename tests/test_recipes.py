"""A recipe says what it means or is refused, with the place and the fix."""

from pathlib import Path

import pytest

from lens_core.doors import own_class
from lens_core.recipes import RecipeProblem, Strict, dump_recipe, field_lines, find_recipe, load_recipe, read_recipe
from lens_rl.recipe import RECIPES, RlRecipe


class Inner(Strict):
    rate: float = 1.0
    sizes: tuple[tuple[int, int], ...] = ()


class Outer(Strict):
    steps: int
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = ()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_reads_what_it_dumps(tmp_path):
    recipe = load_recipe(Outer, write(tmp_path, "steps: 3\ninner: {rate: 3e-4, sizes: [[1, 2]]}\nparts: [{rate: 2}]\n"))
    assert recipe.inner.rate == 3e-4
    assert recipe.inner.sizes == ((1, 2),)
    assert read_recipe(Outer, dump_recipe(recipe), "dump") == recipe


def test_overrides_win_and_are_typed(tmp_path):
    path = write(tmp_path, "steps: 3\n")
    recipe = load_recipe(Outer, path, ["inner.rate=5e-1", "steps=7"])
    assert (recipe.steps, recipe.inner.rate) == (7, 0.5)
    with pytest.raises(RecipeProblem, match=r"--set steps=twelve: steps"):
        load_recipe(Outer, path, ["steps=twelve"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 3\ninner:\n  raet: 1\n", r"recipe.yaml:3: unknown field 'inner.raet' .did you mean 'rate'\?"),
        ("steps: 3\nparts:\n  - raet: 1\n", r"recipe.yaml:3: unknown field 'parts.0.raet' .did you mean 'rate'\?"),
        ("steps: 3\nzzz: 1\n", r"recipe.yaml:2: unknown field 'zzz'; the fields here are: inner, parts, steps"),
        ("inner: {rate: 1}\n", r"field 'steps' is missing"),
        ("steps: '3'\n", r"recipe.yaml:1: steps: .*integer.*got '3'"),
        ("steps: 2.5\n", r"recipe.yaml:1: steps"),
        ("steps: 3\nsteps: 4\n", r"recipe.yaml:2: field 'steps' is given twice"),
        ("- 1\n", r"must be a mapping"),
        ("steps: [\n", r"not a YAML recipe"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(RecipeProblem, match=message):
        load_recipe(Outer, write(tmp_path, text))


def test_all_mistakes_at_once(tmp_path):
    with pytest.raises(RecipeProblem) as problem:
        load_recipe(Outer, write(tmp_path, "stpes: 3\ninner: {rate: fast}\n"))
    assert all(word in str(problem.value) for word in ("stpes", "did you mean 'steps'", "inner.rate", "missing"))


@pytest.mark.parametrize("override", ["steps", "=3", "steps.deep=3"])
def test_bad_overrides(tmp_path, override):
    with pytest.raises(RecipeProblem, match="--set"):
        load_recipe(Outer, write(tmp_path, "steps: 3\n"), [override])


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeProblem, match=r"unknown recipe 'shape' .did you mean 'shapes'"):
        find_recipe("shape", RECIPES)
    with pytest.raises(RecipeProblem, match="does not exist"):
        find_recipe("nowhere/x.yaml", RECIPES)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_shipped_recipes_are_valid(name):
    recipe = load_recipe(RlRecipe, find_recipe(name, RECIPES))
    assert recipe.name == name
    assert read_recipe(RlRecipe, dump_recipe(recipe), name) == recipe


def test_lens_recipe_is_the_papers():
    recipe = load_recipe(RlRecipe, find_recipe("lens", RECIPES))
    assert (recipe.prompts.per_step, recipe.rollout.images_per_prompt, recipe.steps) == (48, 24, 180)
    assert (recipe.policy.kind, recipe.policy.rank, recipe.policy.alpha) == ("lora", 64, 128)
    assert (recipe.optimizer.lr, recipe.nft.nft_beta, recipe.nft.kl_weight) == (3e-4, 1.0, 1e-4)
    assert len(recipe.rollout.sizes) == 9
    assert recipe.judge.model == "gpt-4.1-mini"


def test_an_override_may_name_a_class_of_ones_own(tmp_path):
    config = load_recipe(RlRecipe, find_recipe("shapes", RECIPES), ["judge.backend=python: my_judge.py:Mine"])
    assert config.judge.backend == "python: my_judge.py:Mine"


def test_door_for_own_classes(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    pass\n")
    assert own_class(f"python: {file}:Mine", field="judge.backend").__name__ == "Mine"
    with pytest.raises(RecipeProblem, match=r"judge.backend: .* has no class 'Other'"):
        own_class(f"python: {file}:Other", field="judge.backend")
    with pytest.raises(RecipeProblem, match="there is no file"):
        own_class("python: nowhere.py:Mine", field="judge.backend")
    with pytest.raises(RecipeProblem, match="should read"):
        own_class("python: Mine", field="judge.backend")


def test_a_file_that_anchors_make_endless_is_refused(tmp_path):
    file = tmp_path / "bomb.yaml"
    file.write_text("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)))

    with pytest.raises(RecipeProblem, match=r"bomb\.yaml has more than 200,000 fields"):
        field_lines(file)
