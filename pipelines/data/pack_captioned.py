"""`lens-rl data pack`: captioned sets to training shards, in buckets, in an order that the pictures alone decide."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from base_model.buckets import tokens
from lens_core.progress import ProgressDisplay
from lens_core.recipes import RecipeProblem
from lens_core.records import Size
from lens_core.runs import RunFolder
from lens_core.seeds import seed_of
from pipelines.data.buckets import SUFFIXES, Buckets, encode, fit_picture, fit_text
from pipelines.data.captioned import Captioned, read_captioned, rows_file, sha256
from pipelines.data.cleaning.reading import Unreadable, read
from pipelines.data.cleaning.sources import Reference
from pipelines.data.needs import need
from pipelines.data.pack import Members, Unpackable, described, pack

SPLITS = ("train", "validation")
WHOLE_RANGE = 2**63
"""Of `seed_of`."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture of a captioned set, as a sample to be packed."""

    row: Captioned
    reference: Reference
    buckets: Buckets

    @property
    def identity(self) -> str:
        return self.row.line()

    def members(self) -> Members:
        from pipelines.data.cleaning.pixels import MOST_PIXELS, decode

        try:
            content = read(self.reference)
            if sha256(content) != self.row.sha256:
                raise Unreadable("is not the picture that was captioned: its bytes have changed")
            picture = decode(content, MOST_PIXELS)
            bucket = self.buckets.choose((picture.height, picture.width))
            facts = {"key": self.row.key, **self.row.facts}
            suffix = SUFFIXES.get(picture.format)
            if suffix and not picture.notes and (picture.height, picture.width) == bucket:
                return described(suffix, content, bucket, self.row.captions, facts)
            if "texts" in facts:
                image, facts = fit_text(picture.rgb, facts, bucket)
            else:
                image = fit_picture(picture.rgb, bucket)
            return described("jpg", encode(image), bucket, self.row.captions, facts)
        except (Unreadable, Unpackable) as reason:
            raise Unpackable(f"{self.row.key}: {reason}") from reason


def pack_captioned(
    sources: Sequence[Path], out: Path, *, sizes: Sequence[Size] = (), validation: float = 0.01, per_shard: int
) -> dict[str, Any]:
    """Pack captioned sets into one corpus; returns its manifest.

    A picture that stands in the sets twice is packed once, with its first captions. About `validation` of the pictures,
    one at least, are the validation split; a picture stays in its split whatever others come. Raises RecipeProblem for
    rows that are none, RunProblem for a folder that holds other shards.
    """
    need("packing", "pretrain", "megatron.energon")
    need("packing", "data", "cv2")
    buckets = Buckets.of(sizes)
    splits = _splits(sources, buckets, validation)  # what is wrong with a row is told before the folder is taken
    with RunFolder(out) as folder:
        folder.keep_config(_settings(sources, buckets, validation, per_shard))
        with ProgressDisplay("samples", sum(map(len, splits.values()))) as bar:
            return pack(out, splits, per_shard=per_shard, report=lambda done: bar.update(done, ""))


def print_manifest(manifest: Mapping[str, Any], out: Path, console: Console) -> None:
    table = Table("bucket", "tokens", "samples")
    for bucket, count in manifest["buckets"].items():
        height, width = (int(side) for side in bucket.split("x"))
        fits = height % 16 == width % 16 == 0
        table.add_row(bucket, f"{tokens((height, width)):,}" if fits else "-", f"{count:,}")
    console.print(table)
    for reason in manifest["left_out"][:5]:
        console.print(f"left out: {reason}", highlight=False, soft_wrap=True, markup=False)
    if len(manifest["left_out"]) > 5:
        console.print(f"... and {len(manifest['left_out']) - 5:,} more, in the manifest", highlight=False)
    by_split = {split: sum(s["samples"] for s in manifest["shards"] if s["split"] == split) for split in SPLITS}
    shards = len(manifest["shards"])
    console.print(
        f"{manifest['samples']:,} samples ({', '.join(f'{n:,} {split}' for split, n in by_split.items())}) in "
        f"{shards:,} {'shard' if shards == 1 else 'shards'} in {out}, sha256 {manifest['corpus_sha256']}",
        highlight=False,
        soft_wrap=True,
    )


def _splits(sources: Sequence[Path], buckets: Buckets, validation: float) -> dict[str, list[Stored]]:
    """The samples of each split, in an order that mixes the sources."""
    rows = sorted(_once(sources), key=lambda found: _place(found[0]))
    if not rows:
        raise RecipeProblem(f"{', '.join(map(str, sources))}: there is no captioned picture to pack")
    held_out = [_place(row) < validation * WHOLE_RANGE for row, _ in rows]
    if validation and not any(held_out):
        held_out[0] = True
    splits: dict[str, list[Stored]] = {split: [] for split in SPLITS}
    for (row, folder), held in zip(rows, held_out, strict=True):
        splits[SPLITS[held]].append(Stored(row, row.reference(folder), buckets))
    return splits


def _once(sources: Sequence[Path]) -> Iterator[tuple[Captioned, Path]]:
    """Every picture with the folder of its rows."""
    seen: set[str] = set()
    for source in sources:
        folder = rows_file(source).parent.resolve()
        for row in read_captioned(source):
            if row.sha256 not in seen:
                seen.add(row.sha256)
                yield row, folder


def _place(row: Captioned) -> int:
    """Between 0 and 2**63, by the picture alone: its place in the order, and whether it is held out."""
    return seed_of("split", row.sha256)


def _settings(sources: Sequence[Path], buckets: Buckets, validation: float, per_shard: int) -> str:
    rows = {str(source): sha256(rows_file(source).read_bytes()) for source in sources}
    sizes = [[f"{height}x{width}" for height, width in tier] for tier in buckets.tiers]
    return yaml.safe_dump(
        {"captions": rows, "sizes": sizes, "validation": validation, "per_shard": per_shard}, sort_keys=False
    )
