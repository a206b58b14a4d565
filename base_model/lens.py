"""Lens as a `Generator`: transformer, autoencoder, text encoder and schedule, in one checkpoint folder.

Shapes: B samples, N image tokens, C token channels; a size is (height, width).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import torch
from torch import Tensor, nn

from base_model import buckets, flow, lora
from base_model.checkpoint import (
    check_files,
    check_tensors,
    load_text_encoder,
    quiet,
    selected_layers,
    stored_transformer,
    stored_vae,
)
from base_model.feature_cache import FeatureCache
from base_model.files import ModelProblem, digest, raise_if, read_json
from base_model.latents import LatentCodec
from base_model.offload import bring
from base_model.text_features import TextEncoder, TextFeatures
from base_model.transformer import LensTransformer
from base_model.weights import SHARD_SIZE
from lens_core.records import Size

LORA_TARGETS = ["attn.img_qkv", "attn.txt_qkv", "attn.to_out.0", "attn.to_add_out"]
UNSUPPORTED_SCHEDULES = (
    "invert_sigmas",
    "stochastic_sampling",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)


class LensGenerator:
    """The `Generator` of Lens checkpoints of any size.

    `scheduler_config` decides the sigmas of sampling: with `use_dynamic_shifting` they follow the released
    empirical rule, which looks at size and steps; without, the constant `shift`. The autoencoder is kept in
    fp32.
    """

    def __init__(
        self,
        transformer: LensTransformer,
        codec: LatentCodec,
        text_encoder: TextEncoder | FeatureCache,
        scheduler_config: Mapping[str, Any],
    ):
        _check_parts(transformer, codec, text_encoder)
        _check_schedule(scheduler_config)
        self.transformer, self.codec, self.text_encoder = transformer, codec, text_encoder
        self.scheduler_config = dict(scheduler_config)
        self.trainable: nn.Module = transformer
        self.lora_targets = list(LORA_TARGETS)
        self.size_multiple = codec.size_multiple

    @property
    def device(self) -> torch.device:
        return self.transformer.img_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.img_in.weight.dtype

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        if isinstance(self.text_encoder, TextEncoder):
            bring(self.text_encoder.model)
        return self.text_encoder.encode(texts).to(self.device, self.dtype)

    def select(self, features: TextFeatures, index_B: Tensor | Sequence[int]) -> TextFeatures:
        return features.select(index_B)

    def collate(self, parts: list[TextFeatures]) -> TextFeatures:
        return TextFeatures.collate(parts)

    def unconditional(self, n: int) -> TextFeatures:
        """No text tokens at all: the empty prompt is not encoded."""
        shape = (n, 0, len(self.text_encoder.layers), self.text_encoder.width)
        text = torch.zeros(shape, device=self.device, dtype=self.dtype)
        return TextFeatures(text, torch.zeros(n, 0, dtype=torch.bool, device=self.device))

    def noise(self, size: Size, seeds: Sequence[int]) -> Tensor:
        """Drawn on the CPU in fp32, so that a seed means the same on every device and in every dtype."""
        bring(self.transformer)
        shape = (buckets.tokens(size, self.size_multiple), self.codec.channels)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return torch.stack(rows).to(self.device, self.dtype)

    def velocity(self, x_BNC: Tensor, sigma_B: Tensor, features: TextFeatures, size: Size) -> Tensor:
        bring(self.transformer)
        grid = buckets.grid(size, self.size_multiple)
        x, text = x_BNC.to(self.device, self.dtype), features.to(self.device, self.dtype)
        sigma = _rounded_as_released(sigma_B.to(self.device), self.dtype)
        return self.trainable(x, text.text_BLFD, sigma, grid, text.mask_BL)

    def compile(self) -> None:
        """Compile the transformer's blocks, for training and sampling: `LensTransformer.compile_blocks`."""
        self.transformer.compile_blocks()

    def guide(self, cond: Tensor, uncond: Tensor, g: float) -> Tensor:
        return flow.guide_with_norm_rescale(cond, uncond, g)

    def sigmas(self, num_steps: int, size: Size) -> Tensor:
        if self.scheduler_config.get("use_dynamic_shifting", False):
            return flow.inference_sigmas(buckets.tokens(size, self.size_multiple), num_steps)
        shift = float(self.scheduler_config.get("shift", 1.0))
        return flow.ending_in_zero(flow.scale_sigma(flow.uniform_sigmas(num_steps), shift))

    def images(self, x_BNC: Tensor, size: Size) -> np.ndarray:
        bring(self.codec.vae)
        return self.codec.decode(x_BNC, size)

    def latents(self, images: np.ndarray) -> Tensor:
        return self.codec.encode(images).to(self.device, self.dtype)

    def identity(self) -> str:
        configs = [_plain_config(part) for part in (self.transformer, self.codec.vae)]
        text = json.dumps([*configs, self.scheduler_config, self.text_encoder.identity()], sort_keys=True, default=str)
        return digest(self.transformer, self.codec.vae, salt=text)

    def save(self, path: str | Path) -> None:
        """Write the diffusers folder layout. Adapter layers are refused: merge them, or take them away, first."""
        if isinstance(self.text_encoder, FeatureCache):
            raise ModelProblem(
                "features: opened without its text encoder; open it without `features` to save all of it"
            )
        if any(".base_layer." in name for name in self.transformer.state_dict()):
            raise ModelProblem("the transformer carries adapter layers; merge_loras() before saving, or load_loras([])")
        folder = Path(path)
        quiet()
        self.transformer.save_pretrained(folder / "transformer", max_shard_size=SHARD_SIZE)
        self.codec.vae.save_pretrained(folder / "vae")
        self.text_encoder.save(folder / "text_encoder", folder / "tokenizer")
        _write_json(folder / "scheduler/scheduler_config.json", self.scheduler_config)
        _write_json(folder / "model_index.json", _index(self.text_encoder))

    def load_loras(self, loras: Sequence[tuple[str | Path, float]]) -> None:
        """Attach exactly these LoRA files, each times its weight; no gradients. `[]` takes all of them away.

        Raises ModelProblem, before anything changes, for a file that is no LoRA or does not fit.
        """
        lora.load_loras(self.transformer, loras)

    def merge_loras(self) -> None:
        """Fold the attached LoRAs into the weights: faster, and they can be saved and trained."""
        lora.merge(self.transformer)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        transformer: str | Path | None = None,
        features: str | Path | None = None,
    ) -> "LensGenerator":
        """Read a checkpoint folder, strictly: what is missing, unexpected or mis-shaped is a ModelProblem.

        `dtype` is that of the transformer. `transformer` is another one in place of the folder's: one .safetensors
        file, or a folder of its own. The text encoder keeps the dtype it is stored in; with `features`, the folder
        of a feature cache, it is not read at all.
        """
        folder = Path(path)
        quiet()
        left_out = ["transformer"] * (transformer is not None) + ["text_encoder", "tokenizer"] * (features is not None)
        check_files(folder, without=left_out)
        parts = stored_transformer(folder, Path(transformer) if transformer is not None else None), stored_vae(folder)
        check_tensors(folder, parts)
        layers = selected_layers(parts[0].config)
        cache = FeatureCache.for_model(Path(features), folder, layers) if features else None
        denoiser, vae = parts[0].load(dtype, device), parts[1].load(torch.float32, device)
        schedule = read_json(folder / "scheduler/scheduler_config.json")
        return cls(denoiser, LatentCodec(vae), cache or load_text_encoder(folder, layers, device), schedule)


def _index(text_encoder: TextEncoder) -> dict[str, Any]:
    return {
        "_class_name": "LensPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", type(text_encoder.model).__name__],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "LensTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    }


def _rounded_as_released(sigma_B: Tensor, dtype: torch.dtype) -> Tensor:
    """The release rounds the time 1000 * sigma to the model's dtype before it divides by 1000.

    In bf16 a sigma of 0.7672 so becomes 0.7695; rounded once it would be 0.7656, another velocity.
    """
    return sigma_B if dtype == torch.float32 else (1000 * sigma_B).to(dtype) / 1000


def _check_parts(transformer: LensTransformer, codec: LatentCodec, text_encoder: TextEncoder | FeatureCache) -> None:
    """The three parts must agree on their widths and layers."""
    config = cast(Any, transformer.config)
    width_out = transformer.proj_out.out_features
    problems = []
    if not config.in_channels == width_out == codec.channels:
        problems.append(
            f"in_channels {config.in_channels}, patch_size^2 * out_channels {width_out} and the "
            f"autoencoder's 4 * latent_channels {codec.channels} must be the same"
        )
    if config.enc_hidden_dim != text_encoder.width:
        problems.append(f"enc_hidden_dim {config.enc_hidden_dim}: the text encoder's width is {text_encoder.width}")
    if tuple(config.selected_layer_index) != text_encoder.layers:
        problems.append(
            f"selected_layer_index {list(config.selected_layer_index)} is not the text encoder's "
            f"{list(text_encoder.layers)}"
        )
    raise_if("transformer/config.json", problems)


def _check_schedule(config: Mapping[str, Any]) -> None:
    where = "scheduler_config.json"
    problems = [f"{name}: {config[name]!r} is unsupported" for name in UNSUPPORTED_SCHEDULES if config.get(name)]
    if config.get("time_shift_type", "exponential") != "exponential":
        problems.append(f"time_shift_type: {config['time_shift_type']!r}; only 'exponential' is supported")
    shift = config.get("shift", 1.0)
    if not isinstance(shift, int | float) or shift <= 0:
        problems.append(f"shift: {shift!r} must be a positive number")
    raise_if(where, problems)


def _plain_config(part: Any) -> dict[str, Any]:
    """The configuration without diffusers' own notes, such as the folder it was read from."""
    return {name: value for name, value in part.config.items() if not name.startswith("_")}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(value), indent=2, sort_keys=True) + "\n", encoding="utf-8")
