"""Scorers are real `transformers` models, tiny and untrained: the doors, the numbers, and what goes wrong."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse.csgraph import connected_components
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from lens_core.recipes import RecipeProblem
from lens_core.runs import RunProblem
from pipelines.data import clean as job
from pipelines.data.cleaning import scorers
from pipelines.data.cleaning.recipe import Scorer

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SIDE = {"image_size": 16, "patch_size": 8}
ANY = ("thresholds.min_area=0", "thresholds.sharpness=0", "thresholds.entropy=0", "thresholds.hash_bits=0")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a classifier of two classes, a model of one output, a CLIP and a DINOv2."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    size = {"height": 16, "width": 16}
    two = ViTForImageClassification(ViTConfig(**TINY, **SIDE, id2label={0: "normal", 1: "nsfw"}))
    one = ViTForImageClassification(ViTConfig(**TINY, **SIDE, num_labels=1))
    clip = CLIPModel(
        CLIPConfig(
            text_config={**TINY, "vocab_size": 50},
            vision_config={**TINY, **SIDE, "projection_dim": 8},
            projection_dim=8,
        )
    )
    dino = Dinov2Model(Dinov2Config(**{key: TINY[key] for key in TINY if key != "intermediate_size"}, **SIDE))
    for name, model in {"two": two, "one": one, "clip": clip, "dino": dino}.items():
        model.save_pretrained(folder / name)
        clip_like = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
        (ViTImageProcessor(size=size) if name in ("one", "two") else clip_like).save_pretrained(folder / name)
    return folder


def picture(seed, side=48):
    return np.random.default_rng(seed).integers(0, 256, (side, side + 8 * (seed % 3), 3), dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(40):
        Image.fromarray(picture(number)).save(tmp_path / "in" / f"{number:03d}.png")
    return tmp_path / "in"


def run(source, out, *overrides):
    found = job.clean(str(source), out, job.load(None, [*ANY, *overrides]))
    return found, pd.read_parquet(out / "manifest.parquet").set_index("key")


def test_a_class_is_scored_by_its_probability(models):
    images = [picture(number) for number in range(5)]
    nsfw = scorers.load("nsfw", Scorer(model=str(models / "two"), label="nsfw"))(images)
    normal = scorers.load("nsfw", Scorer(model=str(models / "two"), label="normal"))(images)
    both = scorers.load("nsfw", Scorer(model=str(models / "two"), label="normal+nsfw"))(images)
    assert nsfw.shape == (5,) and len(set(nsfw.tolist())) == 5
    assert nsfw + normal == pytest.approx(1) and both == pytest.approx(1)


def test_a_single_output_is_the_score(models):
    images = [picture(number) for number in range(3)]
    found = scorers.load("aesthetics", Scorer(model=str(models / "one")))(images)
    processor = ViTImageProcessor.from_pretrained(models / "one")
    model = ViTForImageClassification.from_pretrained(models / "one").eval()
    with torch.inference_mode():
        expected = model(**processor(images=images, return_tensors="pt")).logits[:, 0]
    assert found == pytest.approx(expected.numpy())


@pytest.mark.parametrize("name, width", [("clip", 8), ("dino", 16)])
def test_embeddings_have_length_one(models, name, width):
    found = scorers.load("embedding", Scorer(model=str(models / name)))([picture(0), picture(1), picture(0)])
    assert found.shape == (3, width)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert found[0] == pytest.approx(found[2]) and not np.allclose(found[0], found[1])


def test_a_label_that_is_not_there(models):
    with pytest.raises(RecipeProblem, match=r"nsfw.label: .*no class 'nsfv' \(did you mean 'nsfw'\?\)"):
        scorers.load("nsfw", Scorer(model=str(models / "two"), label="nsfv"))
    with pytest.raises(RecipeProblem, match="has 2 classes: give its label, of normal, nsfw"):
        scorers.load("nsfw", Scorer(model=str(models / "two")))


def test_a_model_without_a_trained_head_is_refused(models):
    """`transformers` would draw one at random, and score by it."""
    with pytest.raises(RecipeProblem, match=r"nsfw.model: .*clip cannot be loaded: 2 of its weights are missing"):
        scorers.load("nsfw", Scorer(model=str(models / "clip"), label="LABEL_0"))


def test_a_scored_step_drops_by_its_threshold_and_again_by_another(models, pictures, tmp_path):
    model = [f"nsfw.model={models / 'two'}", "nsfw.label=nsfw"]
    _, before = run(pictures, tmp_path / "out", *model, "thresholds.nsfw=1")
    limit = float(before.nsfw.median())
    found, after = run(pictures, tmp_path / "out", *model, f"thresholds.nsfw={limit}")
    assert before.kept.all() and before.nsfw.equals(after.nsfw)
    assert (after.dropped_by == "nsfw").equals(before.nsfw > limit) and 10 < (~after.kept).sum() < 30
    assert next(step for step in found["steps"] if step["step"] == "nsfw")["state"] == "run"


def test_a_model_given_later_leaves_the_other_scores_as_they_are(models, pictures, tmp_path):
    run(pictures, tmp_path / "out")
    parts = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "scores").rglob("*.parquet")}
    _, rows = run(pictures, tmp_path / "out", f"aesthetics.model={models / 'one'}", "thresholds.aesthetics=-100")
    assert rows.aesthetics.notna().all()
    assert {file: file.stat().st_mtime_ns for file in parts} == parts


def test_near_duplicates_are_those_of_the_embedder(models, pictures, tmp_path):
    """The groups of the manifest are those of all cosines of the same model, computed here."""
    embedder = scorers.load("embedding", Scorer(model=str(models / "clip")))
    vectors = embedder([picture(number) for number in range(40)])
    cosines = vectors @ vectors.T
    above = np.sort(cosines[np.triu_indices(40, 1)])[-40:]
    gap = int(np.argmax(np.diff(above)))
    limit = float(above[gap : gap + 2].mean())
    expected = connected_components(cosines > limit)[1]
    found, rows = run(pictures, tmp_path / "out", f"embedding.model={models / 'clip'}", f"thresholds.cosine={limit}")
    assert found["steps"][-1]["how"] == str(models / "clip")
    assert (rows.copies.to_numpy() == np.bincount(expected)[expected]).all()
    assert found["kept"] == len(set(expected)) < 40
    assert (rows[~rows.kept].similarity > limit - 1e-3).all()


OWN = """
import numpy as np
class Own:
    def __init__(self, model, label, device):
        self.raises = label
    def __call__(self, images):
        scores = np.array([image[0, 0, 0] for image in images], np.float32)
        if self.raises == "some" and (scores == {worst}).any():
            raise RuntimeError("this one is too much")
        if self.raises == "all":
            raise RuntimeError("out of memory")
        if self.raises == "nan":
            scores[scores == {worst}] = np.nan
        return scores
"""


@pytest.mark.parametrize("how, reason", [("some", "the scorer failed: RuntimeError: this one is too much"),
                                         ("nan", "the scorer gave no finite number")])  # fmt: skip
def test_a_scorer_that_fails_on_one_image(how, reason, pictures, tmp_path):
    """That image is dropped by the step, with the reason; all others are scored."""
    worst = int(picture(7)[0, 0, 0])
    (tmp_path / "own.py").write_text(OWN.replace("{worst}", str(worst)))
    hit = [number for number in range(40) if picture(number)[0, 0, 0] == worst]
    own = [f"aesthetics.model=python: {tmp_path / 'own.py'}:Own", f"aesthetics.label={how}"]
    found, rows = run(pictures, tmp_path / "out", *own, "thresholds.aesthetics=-1")
    failed = rows[~rows.kept]
    assert list(failed.index) == [f"{number:03d}.png" for number in hit]
    assert set(failed.reason) == {reason} and set(failed.dropped_by) == {"aesthetics"}
    assert rows[rows.kept].aesthetics.notna().all() and failed.aesthetics.isna().all()
    assert found["reasons"] == {reason: len(hit)}


def test_another_text_of_a_class_scores_anew(pictures, tmp_path):
    (tmp_path / "own.py").write_text(OWN.replace("{worst}", "0"))
    own = [f"aesthetics.model=python: {tmp_path / 'own.py'}:Own", "aesthetics.label=none", "thresholds.aesthetics=-1"]
    _, before = run(pictures, tmp_path / "out", *own)
    (tmp_path / "own.py").write_text(OWN.replace("{worst}", "0").replace("return scores", "return scores + 1"))
    _, after = run(pictures, tmp_path / "out", *own)
    assert after.aesthetics.to_numpy() == pytest.approx(before.aesthetics.to_numpy() + 1)


def test_a_scorer_that_fails_on_all_stops_and_is_not_stored(pictures, tmp_path):
    """Else every image would be dropped for the scorer's fault, for good."""
    (tmp_path / "own.py").write_text(OWN.replace("{worst}", "0"))
    own = f"aesthetics.model=python: {tmp_path / 'own.py'}:Own"
    with pytest.raises(RunProblem, match=r"the scorer fails on 40 of 40 images, for example: .*out of memory"):
        run(pictures, tmp_path / "out", own, "aesthetics.label=all")
    assert not list((tmp_path / "out" / "scores").glob("aesthetics-*/*.parquet"))
    _, rows = run(pictures, tmp_path / "out", own, "aesthetics.label=none", "thresholds.aesthetics=-1")
    assert rows.kept.all()


def test_an_embedder_that_fails_leaves_the_image_out(pictures, tmp_path):
    """It can be compared with none, so it is not passed as unlike all others."""
    (tmp_path / "own.py").write_text(OWN.replace("{worst}", str(picture(7)[0, 0, 0])).replace(
        "return scores", "return np.stack([scores, 255 - scores, scores * 0 + 9], 1)"))  # fmt: skip
    own = [f"embedding.model=python: {tmp_path / 'own.py'}:Own", "embedding.label=some"]
    found, rows = run(pictures, tmp_path / "out", *own, "thresholds.cosine=0.9999999")
    row = rows.loc["007.png"]
    assert row.dropped_by == "near-duplicate" and "this one is too much" in row.reason and row.duplicate_of == ""
    assert json.loads((tmp_path / "out" / "funnel.json").read_text()) == found
