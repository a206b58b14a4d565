"""Shards: the same samples give the same bytes, and a kill leaves no half shard."""

import hashlib
import tarfile

import pytest

from base_model.pretraining.loader import ShardProblem, read_samples
from lens_rl.shapes.judge import look
from pipelines.data import shapes
from pipelines.data.pack import MANIFEST, pack
from taxonomy.sampler import split_of
from tests.tiny import SIZES


def samples(n, seed, split, flawed_share=0.35):
    return shapes.samples(n, seed, split, sizes=SIZES, flawed_share=flawed_share)


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.tar"))}


def pack_few(folder, seed=0):
    return pack(
        folder, {"train": samples(25, seed, "train"), "validation": samples(6, seed, "validation")}, per_shard=10
    )


def test_same_samples_same_bytes(tmp_path):
    one, two, other = pack_few(tmp_path / "a"), pack_few(tmp_path / "b"), pack_few(tmp_path / "c", seed=1)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert one["corpus_sha256"] == two["corpus_sha256"] != other["corpus_sha256"]
    assert [shard["samples"] for shard in one["shards"]] == [10, 10, 5, 6]
    assert digests(tmp_path / "a") == {shard["name"]: shard["sha256"] for shard in one["shards"]}


def test_packing_again_costs_nothing(tmp_path):
    pack_few(tmp_path / "a")
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()}
    pack_few(tmp_path / "a")
    assert before == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").iterdir()}


def test_interrupted_packing_leaves_whole_shards_and_goes_on(tmp_path):
    def breaks_off():
        for number, sample in enumerate(samples(25, 0, "train")):
            if number == 17:
                raise KeyboardInterrupt
            yield sample

    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path / "a", {"train": breaks_off()}, per_shard=10)
    assert not (tmp_path / "a" / MANIFEST).exists()
    for shard in (tmp_path / "a").glob("*.tar"):
        with tarfile.open(shard) as tar:
            assert len(tar.getnames()) == 20
    pack_few(tmp_path / "a")
    pack_few(tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_what_is_packed_is_what_is_read(tmp_path):
    pack_few(tmp_path / "a")
    packed = list(samples(25, 0, "train"))
    read = list(read_samples(tmp_path / "a", "train"))
    assert len(read) == 25
    for before, after in zip(packed, read, strict=True):
        assert (before.image == after.image).all()
        assert before.captions == after.captions
    assert {sample.image.shape[:2] for sample in read} == set(SIZES)


def test_the_corpus_holds_no_scene_of_a_held_out_prompt():
    """Every caption of the training shards belongs to the training split, and so on."""
    from taxonomy.tree import load_tree

    tree = load_tree("shapes")
    by_facts = {
        frozenset(category.slots): category.name for category in tree.categories if "relation" in category.slots
    }
    for split in ("train", "validation"):
        for sample in samples(60, 3, split):
            name = by_facts.get(frozenset(sample.facts) - {"flaw"})
            if name is not None:
                assert split_of(tree.templates[name].scene(sample.facts)) == split


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(ShardProblem, match="holds no indexed shards"):
        list(read_samples(tmp_path, "train"))


def test_the_stated_share_of_the_corpus_is_flawed_and_the_captions_keep_silent():
    clean, web = (list(samples(600, 0, "train", flawed_share=share)) for share in (0.0, 0.35))
    assert {sample.facts["flaw"] for sample in clean} == {None}
    flawed = [sample.facts["flaw"] for sample in web if sample.facts["flaw"]]
    assert set(flawed) == set(shapes.FLAWS) and abs(len(flawed) / 600 - 0.35) < 0.06
    assert [sample.captions for sample in web] == [sample.captions for sample in clean]


def test_a_miscounted_picture_shows_one_object_more_or_fewer():
    found = [s for s in samples(600, 0, "train", flawed_share=1.0) if s.facts["flaw"] == "miscounted"]
    for sample in found:
        said = sum(n for name, n in sample.facts.items() if name.startswith("count"))
        assert abs(len(look(sample.image).scene.things) - said) == 1
    assert len(found) > 80
