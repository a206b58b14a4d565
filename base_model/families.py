"""Which model a safetensors file belongs to, told from its keys: so that a file handed in by mistake is named."""

from collections.abc import Iterable

FAMILIES = {
    "a FLUX.2 transformer": ("double_stream_modulation_img.linear.weight", "double_stream_modulation_img.lin.weight"),
    "a FLUX.1 transformer": ("single_transformer_blocks.0.proj_mlp.weight", "double_blocks.0.img_attn.qkv.weight"),
    "a Stable Diffusion 3 transformer": ("pos_embed.pos_embed", "joint_blocks.0.x_block.attn.qkv.weight"),
    "a Qwen-Image transformer": ("transformer_blocks.0.attn.add_q_proj.weight",),
    "a Z-Image transformer": ("noise_refiner.0.attention_norm1.weight",),
    "a Stable Diffusion UNet": ("down_blocks.0.resnets.0.conv1.weight", "input_blocks.0.0.weight"),
    "an autoencoder": ("decoder.conv_in.weight",),
    "a GPT-OSS text encoder": ("model.layers.0.self_attn.sinks", "layers.0.self_attn.sinks"),
    "a Lens transformer": ("txt_norm.0.weight",),
}
"""Keys that only this family has, in diffusers' spelling and in that of the original release; the first hit counts."""

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""Put before every key by programs that keep a whole pipeline in one file."""

LORA_MARKS = (".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.")


def family(keys: Iterable[str]) -> str | None:
    """What the keys belong to, with its article, or None for a model that is not listed here."""
    plain = {without_prefix(key) for key in keys}
    if any(mark in key for key in plain for mark in LORA_MARKS):
        return "a LoRA"
    return next((name for name, marks in FAMILIES.items() if not plain.isdisjoint(marks)), None)


def without_prefix(key: str) -> str:
    """The key without what other programs put before it."""
    return next((key.removeprefix(prefix) for prefix in PREFIXES if key.startswith(prefix)), key)
