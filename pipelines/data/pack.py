"""Pictures with captions to WebDataset shards: the same samples give the same bytes.

FOLDER/
  train-000000.tar ...    members KEY.png and KEY.json, the latter with captions and facts
  manifest.json           shards, samples and checksums; written last, so it says that packing is finished
  .nv-meta/               the index of megatron-energon, by which `base_model.pretraining.loader` reads
"""

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lens_core.runs import whole_file, write_whole

MANIFEST = "manifest.json"
SAMPLES_PER_SHARD = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Packable:
    """One sample to be packed: uint8 RGB (H, W, 3), captions by kind, and what is known of the picture."""

    image: np.ndarray
    captions: Mapping[str, Sequence[str]]
    facts: Mapping[str, Any]


def pack(
    folder: Path, splits: Mapping[str, Iterable[Packable]], *, per_shard: int = SAMPLES_PER_SHARD
) -> dict[str, Any]:
    """Write the shards of each split and their index; returns the manifest.

    A folder with a manifest is finished and left as it is. A shard is whole or absent: after an interruption
    the same call writes the same shards again. Raises RunProblem where the disk says no.
    """
    manifest_file = folder / MANIFEST
    if manifest_file.is_file():
        return json.loads(manifest_file.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    shards = [shard for split, samples in splits.items() for shard in _write_split(folder, split, samples, per_shard)]
    _index(folder, list(splits), [shard["name"] for shard in shards])
    content = "".join(f"{shard['name']} {shard['sha256']}\n" for shard in shards)
    manifest = {"corpus_sha256": hashlib.sha256(content.encode()).hexdigest(), "shards": shards}
    write_whole(manifest_file, json.dumps(manifest, indent=2) + "\n")
    return manifest


def _write_split(folder: Path, split: str, samples: Iterable[Packable], per_shard: int) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(_parts(samples, per_shard)):
        name = f"{split}-{number:06d}"
        with whole_file(folder / f"{name}.tar") as draft, tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
            for place, sample in enumerate(part):
                for suffix, content in _members(sample).items():
                    _add(tar, f"{name}-{place:06d}.{suffix}", content)
        sha256 = hashlib.sha256((folder / f"{name}.tar").read_bytes()).hexdigest()
        yield {"name": f"{name}.tar", "split": split, "samples": len(part), "sha256": sha256}


def _parts(samples: Iterable[Packable], size: int) -> Iterator[list[Packable]]:
    stream = iter(samples)
    while part := list(islice(stream, size)):
        yield part


def _members(sample: Packable) -> dict[str, bytes]:
    """File suffix -> bytes. PNG, since small pictures must survive to the pixel."""
    buffer = io.BytesIO()
    Image.fromarray(sample.image).save(buffer, "PNG")
    description = {"captions": sample.captions, "facts": sample.facts}
    text = json.dumps(description, sort_keys=True, ensure_ascii=False)
    return {"png": buffer.getvalue(), "json": text.encode()}


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
