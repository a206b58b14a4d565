"""A Lens of a few thousand weights, built and never downloaded, for the tests of everything around it."""

import torch
from diffusers import AutoencoderKLFlux2

from base_model.latents import LatentCodec
from base_model.lens import LensGenerator
from base_model.text_features import tiny_text_encoder
from base_model.transformer import LensTransformer

SIZES = ((24, 24), (20, 28), (28, 20))
"""(height, width) of the embedded world's pictures."""
WORDS = (  # noqa: SIM905
    "one two three four red green blue yellow purple circle circles square squares triangle triangles cross crosses "
    "on a and the word small large white grey black beige background left right of above below"
).split()


def tiny_generator(seed: int = 0) -> LensGenerator:
    """Random weights; 4-pixel tokens, so sides are multiples of 4."""
    torch.manual_seed(seed)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=16,
    )
    vae.bn.running_var.fill_(0.3)
    transformer = LensTransformer(
        patch_size=2,
        in_channels=8,
        out_channels=2,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        enc_hidden_dim=32,
        axes_dims_rope=(4, 6, 6),
        selected_layer_index=(0, 1),
    )
    for name, parameter in transformer.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        elif "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    encoder = tiny_text_encoder(WORDS, hidden=32, layers=2, seed=seed)
    schedule = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": False, "shift": 2.0}
    return LensGenerator(transformer, LatentCodec(vae.eval().requires_grad_(False)), encoder, schedule)
