"""The configuration of a pretraining run: corpus, autoencoder, transformer."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lens_core.recipes import Strict

RECIPES = Path(__file__).parent / "recipes"

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Corpus(Strict):
    """What to train on: `shards`, or so many pictures of the embedded world, which are drawn."""

    shards: str | None = None
    """Folder that `lens-rl data pack` wrote."""
    train: Count
    validation: Count
    sizes: tuple[tuple[Count, Count], ...]
    """(height, width) of the pictures, dealt out in turn."""
    flawed_share: Share = 0.0
    """Share of drawn training pictures that are blurred, noisy, cut, merged or miscounted, with silent captions."""
    dense_share: Share = 1.0
    """Share of texts that are dense captions; the others are brief."""
    no_text_share: Share = 0.1
    """Share of samples trained without any text tokens, for guidance."""


class Vae(Strict):
    """An AutoencoderKLFlux2 trained from nothing. Its downsampling is 2 ** (len(widths) - 1)."""

    widths: tuple[Count, ...]
    latent_channels: Count
    layers_per_block: Count = 1
    norm_groups: Count = 8
    attention: bool = False
    """Attention in the middle block."""
    steps: Count
    batch_size: Count = 64
    lr: Positive = 2e-3
    kl_weight: Annotated[float, Field(ge=0.0)] = 1e-4


class Transformer(Strict):
    """A LensTransformer trained from nothing; `config` holds the fields of its config.json."""

    config: dict[str, Any]
    scheduler: dict[str, Any]
    """scheduler_config.json of the finished model."""
    steps: Count
    batch_size: Count = 64
    lr: Positive = 2e-3
    """Of AdamW: embeddings, modulation, norms, head."""
    muon_lr: Positive = 0.02
    """Of Muon: the matrices of the blocks' attention and MLP."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    warmup: Annotated[int, Field(ge=0)] = 100
    decay_share: Share = 0.5
    """Last part of the steps, in which the learning rate falls linearly to zero."""
    clip_norm: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    sigma_mu: float = 0.0
    """Centre of the logit-normal sigma; above 0 leans to noise. The paper's rule starts at 256 tokens."""
    sigma_std: Positive = 1.0


class PretrainRecipe(Strict):
    name: str
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 leaves torch's choice."""
    save_every: Count = 500
    text_width: Count = 64
    """Width of the tiny frozen text encoder."""
    text_layers: Count = 4
    corpus: Corpus
    vae: Vae
    transformer: Transformer
