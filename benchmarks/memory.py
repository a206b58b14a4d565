"""Computed peaks of a model of the released size: `python -m benchmarks.memory`. No GPU, no weights.

The numbers are those of tensors. A CUDA context, workspaces and the allocator's gaps come on top: one to two GB.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from rich.console import Console
from rich.table import Table

from base_model.lens import LORA_TARGETS
from base_model.memory import Batch, Memory, decoding_bytes, generation_memory, training_memory

GRID, TEXT_TOKENS, RANK = (64, 64), 64, 64
SIZES = ((1024, 1024), (1440, 1440))


def rows(quick: bool) -> Iterator[tuple[str, Memory]]:
    """What is done, and the memory of its transformer."""
    bf16 = torch.bfloat16
    for images in (1, 4):
        yield f"generate {images} at 1024², bf16", generation_memory({}, bf16, Batch(images, GRID, TEXT_TOKENS))
        for checkpointing in (True, False):
            name = f"LoRA RL, {images} at 1024², bf16, {'with' if checkpointing else 'without'} checkpointing"
            batch = Batch(images, GRID, TEXT_TOKENS)
            yield (
                name,
                training_memory({}, bf16, batch, lora_rank=RANK, targets=LORA_TARGETS, checkpointing=checkpointing),
            )
        if quick:
            return


def decoding() -> Iterator[tuple[str, int]]:
    """Which picture, and the bytes of decoding it."""
    with torch.device("meta"):
        vae = AutoencoderKLFlux2(sample_size=1024)
    for size in SIZES:
        for tiled in (False, True):
            yield f"decode {size[0]}x{size[1]}{', tiled' if tiled else ''}", decoding_bytes(vae, size, tiled=tiled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="single pictures only")
    parser.add_argument("--json", type=Path, help="write the numbers, in bytes, to this file")
    options = parser.parse_args()
    table = Table("what", "frozen", "training", "activations", "GiB in all")
    found = {}
    for name, memory in rows(options.quick):
        parts = (memory.weights, memory.trained, memory.activations, memory.total)
        table.add_row(name, *(f"{part / 2**30:.2f}" for part in parts))
        found[name] = dict(zip(("weights", "trained", "activations", "total"), parts, strict=True))
    for name, size in decoding():
        table.add_row(name, "", "", f"{size / 2**30:.2f}", "")
        found[name] = {"activations": size}
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
