"""`LensPipeline`: prompts in, pictures out, with the manners of a diffusers pipeline.

Shapes: B pictures = prompts * pictures of each, N image tokens, C token channels; a size is (height, width).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import GptOssForCausalLM, GptOssModel, PreTrainedTokenizerFast

from base_model import buckets
from base_model.latents import LatentCodec
from base_model.lens import LensGenerator
from base_model.offload import bring
from base_model.sampling import choose_sampler, denoise, negative_features
from base_model.text_features import TextEncoder, TextFeatures
from base_model.text_template import TextTemplate
from base_model.transformer import LensTransformer
from lens_core.records import Size

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

Random = torch.Generator | list[torch.Generator]
Told = Callable[["LensPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]
"""(pipeline, step, 1000 * sigma, {"latents": x_BNC}) -> what of it goes on changed."""


class LensPipeline(DiffusionPipeline):
    """A diffusers pipeline over the parts of a Lens checkpoint; what they do together is `LensGenerator`'s.

    >>> pipe = LensPipeline.from_pretrained("Lens", torch_dtype=torch.bfloat16).to("cuda")
    >>> pipe("a red circle", generator=torch.Generator("cuda").manual_seed(7)).images[0].save("circle.png")

    Transformer, autoencoder and scheduler may be exchanged (`pipe.transformer = torch.compile(pipe.transformer)`).
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKLFlux2,
        text_encoder: GptOssForCausalLM | GptOssModel,
        tokenizer: PreTrainedTokenizerFast,
        transformer: LensTransformer,
        template: TextTemplate | None = None,
        lens: LensGenerator | None = None,
    ):
        """Of the parts, with the released text template if none is given; or over `lens`, which has these parts."""
        super().__init__()
        if lens is None:
            layers = cast(Any, transformer.config).selected_layer_index
            encoder = TextEncoder(text_encoder, tokenizer, layers, template)
            lens = LensGenerator(transformer, LatentCodec(vae), encoder, dict(scheduler.config))
        self._lens = lens
        self.register_modules(
            scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer
        )

    @classmethod
    def from_generator(cls, lens: LensGenerator) -> "LensPipeline":
        """The pipeline over a generator at hand, such as that of a finished run."""
        encoder = lens.text_encoder
        return cls(
            scheduler=cast(Any, FlowMatchEulerDiscreteScheduler.from_config(lens.scheduler_config)),
            vae=lens.codec.vae,
            text_encoder=cast(Any, getattr(encoder, "model", None)),
            tokenizer=cast(Any, getattr(encoder, "tokenizer", None)),
            transformer=lens.transformer,
            lens=lens,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> "LensPipeline":
        """The pipeline of a checkpoint folder, on the CPU; `options` are those of `LensGenerator.load`.

        `dtype`, which diffusers used to call `torch_dtype`, is fp32 if not given. The autoencoder is fp32 in any
        case. Raises ModelProblem, which names all that is wrong.
        """
        return cls.from_generator(LensGenerator.load(path, dtype=dtype or torch_dtype or torch.float32, **options))

    def save_pretrained(self, path: str | Path) -> None:
        """The folder that `from_pretrained` reads: the released layout, safetensors only."""
        self._in_place().save(path)

    def to(self, device: Any = None, dtype: torch.dtype | None = None, **options: Any) -> "LensPipeline":
        """Move to a device, to a dtype, or both, in place.

        The dtype is the transformer's: the autoencoder stays fp32, the text encoder as it was loaded.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if device is not None:
            super().to(device, **options)
        if dtype is not None:
            self.transformer.to(dtype=dtype)
        return self

    def enable_vae_tiling(self) -> None:
        """Decode pictures of more than 1024 x 1024 in tiles: see `LatentCodec.pixels`."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        self.vae.disable_tiling()

    def enable_sequential_cpu_offload(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("LensPipeline: only enable_model_cpu_offload() is supported")

    enable_group_offload = enable_sequential_cpu_offload

    def encode_prompt(self, prompt: str | Sequence[str]) -> TextFeatures:
        """Text features, one row a prompt, for `prompt_embeds`; kept, they spare the text encoder the next time."""
        return self._in_place().encode([prompt] if isinstance(prompt, str) else list(prompt))

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 5.0,
        num_images_per_prompt: int = 1,
        generator: Random | None = None,
        latents: Tensor | None = None,
        prompt_embeds: TextFeatures | None = None,
        negative_prompt_embeds: TextFeatures | None = None,
        sampler: str = "euler",
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Told | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Pictures [prompts * num_images_per_prompt], those of one prompt together.

        Steps and guidance are to be chosen for the checkpoint: 50 and 5 for Lens-Base, 20 and 5 for Lens, 4 and 1
        for Lens-Turbo; a guidance of 1 takes no second pass. A blank `negative_prompt` is no text at all; one for
        all prompts, or one each. `generator` draws noise [B, N, C] in the transformer's dtype, as the release
        does; a list has one for each picture, which then does not depend on its batch. `latents` is such noise,
        given. `prompt_embeds` are features of `encode_prompt` in the place of texts. `output_type`: `pil` (cast
        to bytes by truncation), `np` [B, H, W, 3] or `pt` [B, 3, H, W] in [0, 1], `latent` [B, N, C].
        """
        lens, size = self._in_place(), self._size(height, width)
        num_prompts = _count(prompt, prompt_embeds)
        shape = (num_prompts * num_images_per_prompt, buckets.tokens(size, lens.size_multiple), lens.codec.channels)
        sigmas = lens.sigmas(num_inference_steps, size)
        against = _one_each(negative_prompt, negative_prompt_embeds, num_prompts)
        _check_choices(sampler, output_type, callback_on_step_end_tensor_inputs, num_images_per_prompt)
        _check_noise(generator, latents, shape)

        rows = [row for row in range(num_prompts) for _ in range(num_images_per_prompt)]
        features = self.encode_prompt(cast(Any, prompt)) if prompt_embeds is None else prompt_embeds
        negative = negative_prompt_embeds
        if negative is None and guidance_scale != 1:
            negative = negative_features(lens, against)
        bring(self.transformer)

        with cast(Any, self).progress_bar(total=num_inference_steps) as bar:
            x_BNC = denoise(
                lens,
                self._rows(features, rows),
                size,
                self._noise(shape, generator, latents),
                num_steps=num_inference_steps,
                sampler=sampler,
                guidance=guidance_scale,
                negative=None if negative is None else self._rows(negative, rows),
                callback=self._after_step(bar, sigmas, callback_on_step_end, callback_on_step_end_tensor_inputs),
            )
        images = self._pictures(x_BNC, size, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _in_place(self) -> LensGenerator:
        """The generator over the parts that stand here now."""
        lens, stored = self._lens, self._lens.scheduler_config
        if not isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            raise ValueError(
                f"scheduler: {type(self.scheduler).__name__} cannot be used; it only says how sigmas are spaced, by a "
                "FlowMatchEulerDiscreteScheduler; for steps of second order there is sampler='multistep2'"
            )
        if self.text_encoder is not getattr(lens.text_encoder, "model", None):
            raise ValueError("text_encoder: cannot be exchanged; make another LensPipeline with it")
        if any(self.scheduler.config.get(name) != value for name, value in stored.items() if name[0] != "_"):
            lens.scheduler_config = dict(self.scheduler.config)
        lens.transformer = lens.trainable = self.transformer
        lens.codec.vae = self.vae
        return lens

    def _size(self, height: int | None, width: int | None) -> Size:
        multiple = self._lens.size_multiple
        usual = buckets.usual_size(multiple)
        size = (height or usual[0], width or usual[1])
        buckets.check_size(size, multiple)
        return size

    def _rows(self, features: TextFeatures, rows: Sequence[int]) -> TextFeatures:
        """One row of features for each picture, where the transformer is."""
        return self._lens.select(features, rows).to(self._lens.device, self._lens.dtype)

    def _noise(self, shape: tuple[int, ...], generator: Random | None, latents: Tensor | None) -> Tensor:
        """Noise [B, N, C], where the transformer is and in its dtype."""
        device, dtype = self._lens.device, self._lens.dtype
        return randn_tensor(shape, generator, device, dtype) if latents is None else latents.to(device, dtype)

    def _after_step(
        self, bar: Any, sigmas: Tensor, callback: Told | None, tensors: Sequence[str]
    ) -> Callable[[int, Tensor], Tensor | None]:
        def after_step(step: int, x_BNC: Tensor) -> Tensor | None:
            bar.update()
            if callback is None:
                return None
            given = dict.fromkeys(tensors, x_BNC)
            return (callback(self, step, 1000 * sigmas[step], given) or {}).get("latents")

        return after_step

    def _pictures(self, x_BNC: Tensor, size: Size, output_type: str) -> Any:
        if output_type == "latent":
            return x_BNC
        if output_type == "pil":
            return [Image.fromarray(image) for image in self._lens.images(x_BNC, size)]
        bring(self.vae)
        pixels = self._lens.codec.pixels(x_BNC, size) / 2 + 0.5  # in [0, 1]
        return pixels if output_type == "pt" else pixels.permute(0, 2, 3, 1).cpu().numpy()


def _count(prompt: str | Sequence[str] | None, embeds: TextFeatures | None) -> int:
    """How many prompts there are, in either form."""
    if (prompt is None) == (embeds is None):
        raise ValueError("give either prompt or prompt_embeds")
    num = 1 if isinstance(prompt, str) else len(prompt if embeds is None else embeds)  # pyright: ignore
    if num == 0:
        raise ValueError("prompt: the list is empty")
    return num


def _one_each(negative: str | Sequence[str] | None, embeds: TextFeatures | None, num: int) -> list[str]:
    """The negative prompt of each prompt."""
    given = [negative or ""] * num if negative is None or isinstance(negative, str) else list(negative)
    for name, rows in (("negative_prompt", given), ("negative_prompt_embeds", embeds)):
        if rows is not None and len(rows) != num:
            raise ValueError(f"{name}: {len(rows)} for {num} prompts; there must be one for each")
    return given


def _check_choices(sampler: str, output_type: str, tensors: Sequence[str], num_images: int) -> None:
    choose_sampler(sampler)
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type: {output_type!r} is unknown; there are {', '.join(OUTPUT_TYPES)}")
    if num_images < 1:
        raise ValueError(f"num_images_per_prompt: {num_images}; it must be at least 1")
    if unknown := set(tensors) - {"latents"}:
        raise ValueError(f"callback_on_step_end_tensor_inputs: {', '.join(sorted(unknown))}; there is only latents")


def _check_noise(generator: Random | None, latents: Tensor | None, shape: tuple[int, ...]) -> None:
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(f"generator: a list of {len(generator)} for {shape[0]} pictures; give one, or one each")
    if latents is not None and tuple(latents.shape) != shape:
        raise ValueError(f"latents: {list(latents.shape)}; for these pictures they are tokens {list(shape)}")
