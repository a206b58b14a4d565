"""The Lens transformer against a plain assembly of diffusers' and torch's modules, with the same weights.

    python -m benchmarks.transformer [--quick] [--json FILE] [--threads N]

On a CPU: forward and forward + backward, one prompt and a ragged batch, eager and compiled, in turns with the
plain assembly; outputs are compared before anything is timed. On a machine with a GPU: the model in full size
with random weights (`benchmarks.full_size`), under eight minutes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer

from base_model.transformer import LensTransformer
from benchmarks import full_size
from benchmarks.common import Json, Quick, interleaved, machine, matmul_peak, show
from benchmarks.flops import TRAINING, forward_flops
from benchmarks.plain_lens import PlainLens
from benchmarks.random_lens import Inputs, random_inputs, random_model

ONE_PROMPT = (35,)
RAGGED = (35, 12, 90, 0)  # the last is the unconditional branch of guidance


@dataclass(frozen=True)
class Scale:
    """How large a model is measured, how often, and which workloads are compiled too."""

    heads: int
    blocks: int
    text_width: int
    grid: tuple[int, int]
    rounds: int
    mm_side: int
    compiled: tuple[str, ...]


WORKLOADS = {
    "one prompt, forward": (ONE_PROMPT, False),
    "one prompt, training": (ONE_PROMPT, True),
    "ragged text, forward": (RAGGED, False),
    "ragged text, training": (RAGGED, True),
}
"""Name -> (text lengths of the samples, with the backward)."""

SCALES = {
    "full": Scale(12, 8, text_width=720, grid=(16, 16), rounds=7, mm_side=2048, compiled=tuple(WORKLOADS)),
    "quick": Scale(1, 2, text_width=64, grid=(8, 8), rounds=3, mm_side=256, compiled=("one prompt, forward",)),
}


def main(
    quick: Quick = False,
    json: Json = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; 1 is timed by the processor's clock.")] = 1,
) -> None:
    """Measure and print the table."""
    if torch.cuda.is_available():
        device = torch.device("cuda")
        rows = full_size.measure(full_size.SCALES["quick" if quick else "full"], device, torch.bfloat16)
    else:
        device = torch.device("cpu")
        torch.set_num_threads(threads)
        rows = measure(SCALES["quick" if quick else "full"], device)
    show(f"Lens transformer, {machine(device)}", rows, json)


def measure(scale: Scale, device: torch.device) -> list[dict[str, Any]]:
    """One row for each workload: seconds, ours over the plain assembly's, and how much of the machine is used."""
    model = build(scale, device)
    compiled = full_size.twin(model)
    compiled.compile_blocks()
    contestants = {"plain": PlainLens(model), "eager": model, "compiled": compiled}
    peak = matmul_peak(device, torch.float32, scale.mm_side)
    rows = []
    for name, (lengths, trains) in WORKLOADS.items():
        inputs = random_inputs(model, scale.grid, lengths)
        chosen = {who: run for who, run in contestants.items() if who != "compiled" or name in scale.compiled}
        check_equal(chosen, inputs)
        work = forward_backward if trains else forward
        timed = {who: lambda run=run, work=work, inputs=inputs: work(run, inputs) for who, run in chosen.items()}
        seconds = interleaved(timed, scale.rounds, device)
        flops = forward_flops(model, scale.grid[0] * scale.grid[1], lengths) * (TRAINING if trains else 1)
        rows.append(row(name, seconds, flops, peak))
    return rows


def row(workload: str, seconds: dict[str, float], flops: float, peak: float) -> dict[str, Any]:
    best = min(seconds["eager"], seconds.get("compiled", seconds["eager"]))
    return {
        "workload": workload,
        "plain s": seconds["plain"],
        "eager s": seconds["eager"],
        "compiled s": seconds.get("compiled", "-"),
        "eager/plain": seconds["eager"] / seconds["plain"],
        "best/plain": best / seconds["plain"],
        "GFLOP": flops / 1e9,
        "GFLOP/s": flops / 1e9 / best,
        "of torch.mm": flops / best / peak,
    }


def build(scale: Scale, device: torch.device) -> LensTransformer:
    return random_model(
        device,
        num_layers=scale.blocks,
        num_attention_heads=scale.heads,
        attention_head_dim=64,
        enc_hidden_dim=scale.text_width,
    )


@torch.no_grad()
def check_equal(contestants: Mapping[str, torch.nn.Module], inputs: Inputs, tolerance: float = 1e-4) -> None:
    """Raises AssertionError where one disagrees with the plain assembly: then there is nothing to time."""
    expected = contestants["plain"](*inputs)
    for model in contestants.values():
        torch.testing.assert_close(model(*inputs), expected, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def forward(model: torch.nn.Module, inputs: Inputs) -> None:
    model(*inputs)


def forward_backward(model: torch.nn.Module, inputs: Inputs) -> None:
    model.zero_grad()
    model(*inputs).square().mean().backward()


if __name__ == "__main__":
    typer.run(main)
