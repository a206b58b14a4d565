"""Lens in full size on one GPU, random weights: denoising, decoding, a training step, each with what it uses.

`python -m benchmarks.transformer` runs it where there is a GPU. Its quick scale runs on a CPU too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from torch import Tensor

from base_model import buckets, flow
from base_model.latents import LatentCodec
from base_model.samplers import euler
from base_model.transformer import LensTransformer
from benchmarks.common import interleaved, matmul_peak, wait
from benchmarks.flops import TRAINING, forward_flops
from benchmarks.plain_lens import PlainLens
from benchmarks.random_lens import Inputs, random_inputs, random_model
from lens_core.records import Size

DATA_SHEET = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s by a part of the GPU's name."""

PROMPT = 35
"""Text tokens of the prompt: the golden example of the specification has so many."""

GUIDANCE = 5.0
FARTHEST = 0.2
"""Relative distance of two bf16 forwards of 48 blocks beyond which something is wrong."""


@dataclass(frozen=True)
class Scale:
    """What is measured; the defaults are the released model's."""

    size: Size = (1024, 1024)
    guided_steps: int = 20
    few_steps: int = 4
    train_samples: int = 2
    train_samples_checkpointed: int = 8
    rounds: int = 3
    mm_side: int = 8192
    transformer: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)


SCALES = {
    "full": Scale(),
    "quick": Scale(
        size=(64, 64),
        guided_steps=3,
        few_steps=2,
        train_samples=1,
        train_samples_checkpointed=2,
        rounds=1,
        mm_side=128,
        transformer={"num_layers": 2, "num_attention_heads": 1, "enc_hidden_dim": 32},
        vae={"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4},
    ),
}


def measure(scale: Scale, device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    """One row for each workload."""
    model = random_model(device, dtype, **scale.transformer)
    compiled = twin(model)
    compiled.compile_blocks()
    peaks = {"data sheet": data_sheet_peak(device), "torch.mm": matmul_peak(device, dtype, scale.mm_side)}
    rows = [
        row(*timed, peaks) for part in (forwards, denoising, training) for timed in part(scale, model, compiled, device)
    ]
    return [*rows, row("decode one image, fp32", *decoding(scale, device), 0.0, peaks)]


Timed = tuple[str, float, float, float]
"""Workload, seconds, the most GiB held, FLOP."""


def forwards(scale: Scale, model: LensTransformer, compiled: LensTransformer, device: torch.device) -> list[Timed]:
    """One forward of one prompt: plain, eager and compiled in turns, and how far they are apart."""
    plain = PlainLens(model)
    inputs = random_inputs(model, buckets.grid(scale.size), (PROMPT,))
    contestants = {"plain": plain, "eager": model, "compiled": compiled}
    with torch.no_grad():
        check_near(contestants, inputs)
        timed = {name: lambda run=run: run(*inputs) for name, run in contestants.items()}
        seconds, held = held_by(device, lambda: interleaved(timed, scale.rounds, device))
    flops = forward_flops(model, buckets.tokens(scale.size), (PROMPT,))
    return [(f"forward, {name}", seconds[name], held, flops) for name in contestants]


@torch.no_grad()
def denoising(scale: Scale, model: LensTransformer, compiled: LensTransformer, device: torch.device) -> list[Timed]:
    """Whole sampling runs of one picture: the guided ones with two passes a step, and with one of both rows."""
    tokens = buckets.tokens(scale.size)
    x, text, *_ = random_inputs(model, buckets.grid(scale.size), (PROMPT,))
    guided_flops = scale.guided_steps * (forward_flops(model, tokens, (PROMPT,)) + forward_flops(model, tokens, (0,)))
    few_flops = scale.few_steps * forward_flops(model, tokens, (PROMPT,))

    def run(steps: int, velocity: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: euler(velocity, x, flow.inference_sigmas(tokens, steps))

    runs = {
        f"{scale.guided_steps} guided steps, two passes": run(
            scale.guided_steps, two_passes(compiled, text, scale.size)
        ),
        f"{scale.guided_steps} guided steps, one ragged pass": run(
            scale.guided_steps, one_pass(compiled, text, scale.size)
        ),
        f"{scale.few_steps} steps": run(scale.few_steps, unguided(compiled, text, scale.size)),
    }
    seconds, held = held_by(device, lambda: interleaved(runs, scale.rounds, device))
    return [(name, seconds[name], held, guided_flops if "guided" in name else few_flops) for name in runs]


def training(scale: Scale, model: LensTransformer, compiled: LensTransformer, device: torch.device) -> list[Timed]:
    """Forward and backward over all weights, without and with recomputation, which counts no FLOP."""
    del model
    timed = []
    for samples, checkpointed in ((scale.train_samples, False), (scale.train_samples_checkpointed, True)):
        inputs = random_inputs(compiled, buckets.grid(scale.size), (PROMPT,) * samples)
        compiled.enable_gradient_checkpointing() if checkpointed else compiled.disable_gradient_checkpointing()
        name = f"training, {samples} samples" + (", checkpointing" if checkpointed else "")

        def step(inputs: Inputs = inputs) -> None:
            compiled.zero_grad()
            compiled(*inputs).float().square().mean().backward()

        try:
            times = lambda step=step: interleaved({"step": step}, scale.rounds, device)  # noqa: E731
            seconds, held = held_by(device, times)
        except torch.cuda.OutOfMemoryError:
            print(f"{name}: out of memory, left out")
            continue
        flops = TRAINING * forward_flops(compiled, buckets.tokens(scale.size), (PROMPT,) * samples)
        timed.append((name, seconds["step"], held, flops))
    compiled.disable_gradient_checkpointing()
    compiled.zero_grad()
    return timed


def decoding(scale: Scale, device: torch.device) -> tuple[float, float]:
    """Seconds and GiB of the autoencoder's half of a picture."""
    with device:
        codec = LatentCodec(AutoencoderKLFlux2(**scale.vae))
    x = torch.randn(1, buckets.tokens(scale.size, codec.size_multiple), codec.channels, device=device)
    runs = {"decode": lambda: codec.decode(x, scale.size)}
    seconds, held = held_by(device, lambda: interleaved(runs, scale.rounds, device))
    return seconds["decode"], held


def unguided(model: LensTransformer, text: Tensor, size: Size) -> Callable[..., Tensor]:
    return lambda x, sigma: model(x, text, sigma, buckets.grid(size))


def two_passes(model: LensTransformer, text: Tensor, size: Size) -> Callable[..., Tensor]:
    """With the prompt, then without any text."""
    cond, uncond = unguided(model, text, size), unguided(model, text[:, :0], size)
    return lambda x, sigma: flow.guide_with_norm_rescale(cond(x, sigma), uncond(x, sigma), GUIDANCE)


def one_pass(model: LensTransformer, text: Tensor, size: Size) -> Callable[..., Tensor]:
    """Both rows at once: one launch of each kernel, one reading of each weight, no padding computed."""
    mask = torch.tensor([[True], [False]]).expand(2, text.shape[1])

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        both = model(x.repeat(2, 1, 1), text.repeat(2, 1, 1, 1), sigma.repeat(2), buckets.grid(size), mask)
        return flow.guide_with_norm_rescale(both[:1], both[1:], GUIDANCE)

    return velocity


def twin(model: LensTransformer) -> LensTransformer:
    """Another module with the same weights."""
    with torch.device("meta"):
        other = cast(LensTransformer, LensTransformer.from_config(model.config))
    other.load_state_dict(model.state_dict(), assign=True)
    return other


def check_near(contestants: Mapping[str, Callable[..., Tensor]], inputs: Inputs) -> None:
    """Raises AssertionError where bf16 outputs are farther apart than rounding takes them."""
    outputs = {name: run(*inputs).float() for name, run in contestants.items()}
    expected = outputs["plain"]
    for name, output in outputs.items():
        distance = float((output - expected).norm() / expected.norm())
        assert distance < FARTHEST, f"{name} is {distance:.2f} away from the plain assembly; nothing was timed"


def held_by(device: torch.device, run: Callable[[], Any]) -> tuple[Any, float]:
    """What `run` returns, and the most memory held meanwhile, in GiB (0 on a CPU, which does not say)."""
    if device.type != "cuda":
        return run(), 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    result = run()
    wait(device)
    return result, torch.cuda.max_memory_allocated(device) / 2**30


def data_sheet_peak(device: torch.device) -> float:
    """0 where we have no data sheet."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in DATA_SHEET.items() if part in name), 0.0)


def row(workload: str, seconds: float, held: float, flops: float, peaks: Mapping[str, float]) -> dict[str, Any]:
    shares = {f"of {name}": flops / seconds / peak if peak else 0.0 for name, peak in peaks.items()}
    return {
        "workload": workload,
        "seconds": seconds,
        "GiB": held,
        "TFLOP": flops / 1e12,
        "TFLOP/s": flops / 1e12 / seconds,
        **shares,
    }
