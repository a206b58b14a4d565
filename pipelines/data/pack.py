"""Samples to WebDataset shards: the same samples give the same bytes, and a shard is whole or not there.

FOLDER/
  train-000000.tar ...    members KEY.png, .jpg or .webp, and KEY.json with captions and facts
  packing.jsonl           the shards that are finished, while others are not; gone in the end
  manifest.json           shards, samples, buckets and checksums; written last, so it says that packing is finished
  .nv-meta/               the index of megatron-energon, by which `base_model.pretraining.loader` reads

Shard number N holds what came at the places of its own: a sample that turns out to be no use leaves a gap in its shard
and moves none of the others, so that finished shards stay as they are, whatever happens to later ones.
"""

import contextlib
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from PIL import Image

from lens_core.records import Size
from lens_core.runs import RunProblem, whole_file, write_whole
from pipelines.data.captioned import RowFile

MANIFEST = "manifest.json"
PACKING = "packing.jsonl"
SAMPLES_PER_SHARD = 2000


class Unpackable(ValueError):
    """A sample that cannot go into a shard; its message is the reason, a few words."""


@dataclass(frozen=True, slots=True)
class Members:
    """What a shard holds of one sample: bytes by file suffix. `size` is the picture's, (height, width)."""

    files: Mapping[str, bytes]
    size: Size


class Sample(Protocol):
    """What can be packed. Nothing heavy is done before `members` is called, and for finished shards it is not."""

    @property
    def identity(self) -> str:
        """Its name, and everything else that its members depend on."""
        ...

    def members(self) -> Members:
        """Raises Unpackable."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Packable:
    """A picture in memory: uint8 RGB (H, W, 3), captions by kind, and what is known of it. Stored to the pixel."""

    image: np.ndarray
    captions: Mapping[str, Sequence[str]]
    facts: Mapping[str, Any]

    @property
    def identity(self) -> str:
        pixels = hashlib.sha256(np.ascontiguousarray(self.image).tobytes()).hexdigest()
        return f"{self.image.shape} {pixels} {_description(self.captions, self.facts).decode()}"

    def members(self) -> Members:
        buffer = io.BytesIO()
        Image.fromarray(self.image).save(buffer, "PNG")
        files = {"png": buffer.getvalue(), "json": _description(self.captions, self.facts)}
        return Members(files, (self.image.shape[0], self.image.shape[1]))


def described(picture: str, content: bytes, size: Size, captions: Mapping, facts: Mapping) -> Members:
    """The members of a picture that is encoded already; `picture` is its suffix."""
    return Members({picture: content, "json": _description(captions, facts)}, size)


def pack(
    folder: Path,
    splits: Mapping[str, Iterable[Sample]],
    *,
    per_shard: int = SAMPLES_PER_SHARD,
    report: Callable[[int], None] = lambda samples: None,
) -> dict[str, Any]:
    """Write the shards of each split and their index; returns the manifest.

    A folder with a manifest is finished and left as it is. After an interruption the same call goes on behind the last
    finished shard; `report` hears how many samples are behind it. Raises RunProblem where the disk says no, and where
    the folder holds shards of other samples.
    """
    manifest_file = folder / MANIFEST
    if manifest_file.is_file():
        return json.loads(manifest_file.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    journal = RowFile(folder / PACKING)
    shards: list[dict[str, Any]] = []
    seen = 0
    for name, split, part in _parts(splits, per_shard):
        shards.append(_finished(folder, journal, name, part) or _write(folder, journal, name, split, part))
        seen += len(part)
        report(seen)
    left_out = [reason for shard in shards for reason in shard["left_out"]]
    shards = [shard for shard in shards if shard["samples"]]
    if not shards:
        few = "\n  ".join(left_out[:5]) or "there are no samples"
        raise RunProblem(f"nothing can be packed into {folder}: {len(left_out)} samples are left out:\n  {few}")
    names = [shard["name"] for shard in shards]
    _index(folder, sorted({shard["split"] for shard in shards}), names)
    content = "".join(f"{shard['name']} {shard['sha256']}\n" for shard in shards)
    manifest = {
        "corpus_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "samples": sum(shard["samples"] for shard in shards),
        "buckets": _summed(shard["buckets"] for shard in shards),
        "left_out": left_out,
        "shards": [{key: shard[key] for key in ("name", "split", "samples", "sha256", "buckets")} for shard in shards],
    }
    write_whole(manifest_file, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    journal.path.unlink(missing_ok=True)
    return manifest


def _parts(splits: Mapping[str, Iterable[Sample]], size: int) -> Iterator[tuple[str, str, list[Sample]]]:
    """Name, split and samples of each shard."""
    for split, samples in splits.items():
        stream, number = iter(samples), 0
        while part := list(islice(stream, size)):
            yield f"{split}-{number:06d}", split, part
            number += 1


def _finished(folder: Path, journal: RowFile, name: str, part: Sequence[Sample]) -> dict[str, Any] | None:
    """The record of a shard that an earlier call has finished. Raises RunProblem where it was one of other samples."""
    record = next((row for row in reversed(journal.rows) if row["name"] == f"{name}.tar"), None)
    if record is None or (record["samples"] and not (folder / record["name"]).is_file()):
        return None
    if record["identity"] != _identity(part):
        raise RunProblem(
            f"{folder / record['name']} was packed from other samples or in another way: give another --out, or delete "
            f"{folder} to begin anew"
        )
    return record


def _write(folder: Path, journal: RowFile, name: str, split: str, part: Sequence[Sample]) -> dict[str, Any]:
    """One shard, and then its record: what has no record is written again."""
    buckets: Counter[str] = Counter()
    left_out: list[str] = []
    file = folder / f"{name}.tar"
    with whole_file(file) as draft, tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
        for place, sample in enumerate(part):
            try:
                members = sample.members()
            except Unpackable as reason:
                left_out.append(str(reason))
                continue
            buckets[f"{members.size[0]}x{members.size[1]}"] += 1
            for suffix, content in members.files.items():
                _add(tar, f"{name}-{place:06d}.{suffix}", content)
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    record = {
        "name": file.name,
        "split": split,
        "samples": buckets.total(),
        "sha256": sha256,
        "buckets": dict(sorted(buckets.items())),
        "left_out": left_out,
        "identity": _identity(part),
    }
    if not record["samples"]:
        file.unlink()
    journal.append(json.dumps(record, ensure_ascii=False))
    return record


def _identity(part: Sequence[Sample]) -> str:
    return hashlib.sha256("\n".join(sample.identity for sample in part).encode()).hexdigest()


def _description(captions: Mapping[str, Sequence[str]], facts: Mapping[str, Any]) -> bytes:
    return json.dumps({"captions": captions, "facts": facts}, sort_keys=True, ensure_ascii=False).encode()


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member without owner and time: those would make equal corpora unequal."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _index(folder: Path, splits: Sequence[str], shards: Sequence[str]) -> None:
    from megatron.energon.epathlib import EPath
    from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

    with contextlib.redirect_stdout(io.StringIO()):
        WebdatasetPreparator.prepare_dataset(
            EPath(folder.resolve()),
            list(shards),
            # Brackets and not backslashes, which energon's brace expansion would swallow.
            split_parts_patterns=[(split, f"{split}-[0-9]+[.]tar") for split in splits],
            shuffle_seed=None,
            workers=1,
        )
    kind = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
    write_whole(folder / ".nv-meta" / "dataset.yaml", yaml.safe_dump(kind))
