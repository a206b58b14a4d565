"""The pipeline: parity with loops of diffusers' parts, and the manners of a diffusers pipeline."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from base_model.lens import LensGenerator
from base_model.pipeline import LensPipeline
from base_model.text_features import TextFeatures
from tests.lens_oracle import lens_forward
from tests.test_lens import RELEASED_SCHEDULE, SIZE, build

PROMPTS = ["a red circle", "blue square"]
GRID, SHAPE = (3, 4), (2, 12, 32)
FAST = {"height": SIZE[0], "width": SIZE[1], "num_inference_steps": 2}


@pytest.fixture
def pipe(lens) -> LensPipeline:
    pipe = LensPipeline.from_generator(lens)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def lens() -> LensGenerator:
    return build()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def released_scheduler(num_steps: int) -> FlowMatchEulerDiscreteScheduler:
    scheduler = FlowMatchEulerDiscreteScheduler(**{k: v for k, v in RELEASED_SCHEDULE.items() if k[0] != "_"})
    sigmas = np.linspace(1, 1 / num_steps, num_steps)
    scheduler.set_timesteps(sigmas=sigmas, mu=compute_empirical_mu(12, num_steps))
    return scheduler


def second_order_scheduler(num_steps: int) -> DPMSolverMultistepScheduler:
    """diffusers' own second-order solver on the released sigmas."""
    scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    scheduler.set_timesteps(num_steps)
    released = released_scheduler(num_steps)
    scheduler.sigmas, scheduler.timesteps = released.sigmas, released.timesteps
    return scheduler


def padded(features: TextFeatures, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    missing = length - features.mask_BL.shape[1]
    text = torch.nn.functional.pad(features.text_BLFD, (0, 0, 0, 0, 0, missing))
    return text, torch.nn.functional.pad(features.mask_BL, (0, missing))


def loop_of_diffusers(lens, scheduler, noise, negative, guidance):
    """One forward of [conditional; unconditional] a step, as the release does it, with the oracle's transformer."""
    positive = lens.encode(PROMPTS)
    length = positive.mask_BL.shape[1]
    if any(text.strip() for text in negative):
        encoded = lens.encode(negative)
        length = max(length, encoded.mask_BL.shape[1])
        u_text, u_mask = padded(encoded, length)
    else:
        u_text, u_mask = torch.zeros_like(positive.text_BLFD), torch.zeros_like(positive.mask_BL)
    c_text, c_mask = padded(positive, length)
    text, mask = torch.cat([c_text, u_text]), torch.cat([c_mask, u_mask])
    weights, x = lens.transformer.state_dict(), noise
    for sigma, t in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        v = lens_forward(weights, torch.cat([x, x]), text, sigma.expand(4), GRID, mask, heads=3, axes=(4, 6, 6))
        c, u = v.chunk(2)
        both = u + guidance * (c - u)
        both = both * (c.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True))
        x = scheduler.step(both, t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("sampler", ["euler", "multistep2"])
@pytest.mark.parametrize(
    "negative, guidance",
    [(["", " "], 5.0), (["a blue red blue circle square", ""], 5.0), (["", ""], 1.0)],
    ids=["blank", "one says something", "without guidance"],
)
def test_the_pipeline_is_the_loop_of_diffusers(pipe, lens, sampler, negative, guidance):
    noise = torch.randn(SHAPE, generator=seeded(5))
    scheduler = (released_scheduler if sampler == "euler" else second_order_scheduler)(3)
    theirs = loop_of_diffusers(lens, scheduler, noise, negative, guidance)
    ours = pipe(
        PROMPTS,
        negative,
        *SIZE,
        num_inference_steps=3,
        guidance_scale=guidance,
        latents=noise,
        sampler=sampler,
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=5e-5)


def test_a_blank_negative_is_none_and_another_is_not(pipe):
    def draw(negative):
        return pipe(PROMPTS, negative, **FAST, generator=seeded(1), output_type="latent").images

    assert torch.equal(draw(None), draw(["", "  "]))
    assert (draw("blue") - draw(None)).abs().max() > 1e-2
    assert torch.equal(draw("blue"), draw(["blue", "blue"]))


def test_the_time_is_rounded_in_bf16_as_the_release_does():
    """Section 10.4 of the specification; in fp32 it stays what it is."""
    lens, seen = build(), []
    lens.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    sigmas = torch.tensor([0.967384, 0.908144, 0.767200])
    for dtype in (torch.float32, torch.bfloat16):
        lens.transformer.to(dtype)
        lens.velocity(torch.zeros(3, 12, 32), sigmas, lens.unconditional(3), SIZE)
    assert torch.equal(seen[0], sigmas)
    assert seen[1].tolist() == [0.96875, 0.90625, 0.76953125]


def test_noise_is_drawn_as_the_release_draws_it(pipe, lens):
    """One generator: [B, N, C] at once. A list: each picture its own, whatever its batch."""

    def draw(prompts, **noise):
        return pipe(prompts, **FAST, **noise, output_type="latent").images

    together = draw(PROMPTS, generator=seeded(3))
    assert torch.equal(together, draw(PROMPTS, latents=torch.randn(SHAPE, generator=seeded(3))))
    each = draw(PROMPTS, generator=[seeded(3), seeded(4)])
    torch.testing.assert_close(each[1:], draw(PROMPTS[1:], generator=seeded(4)), atol=1e-5, rtol=1e-5)
    assert torch.equal(draw(PROMPTS, latents=lens.noise(SIZE, [3, 4])), each), "a seed is the same to `noise`"


def test_pictures_of_a_prompt_stand_together_and_features_can_be_kept(pipe):
    def draw(prompt, **options):
        return pipe(prompt, **FAST, num_images_per_prompt=2, generator=[*map(seeded, range(4))], **options).images

    images = draw(PROMPTS)
    assert len(images) == 4 and images[0].size == (32, 24) and images[0].mode == "RGB"
    alone = pipe(PROMPTS[1], **FAST, generator=seeded(2)).images[0]
    assert np.abs(np.asarray(alone, int) - np.asarray(images[2], int)).max() <= 1

    kept, against = pipe.encode_prompt(PROMPTS), pipe.encode_prompt(["blue", "blue"])
    assert draw(None, prompt_embeds=kept) == images
    assert draw(None, prompt_embeds=kept, negative_prompt_embeds=against) == draw(PROMPTS, negative_prompt="blue")


def test_the_output_types_are_one_picture(pipe, lens):
    def draw(output_type, **options):
        return pipe(PROMPTS, **FAST, generator=seeded(3), output_type=output_type, **options)

    latent, pt, array, pil = (draw(kind).images for kind in ("latent", "pt", "np", "pil"))
    assert latent.shape == SHAPE and pt.shape == (2, 3, *SIZE) and pt.dtype == torch.float32
    assert pt.min() >= 0 and pt.max() <= 1
    assert np.array_equal(array, pt.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(np.stack([np.asarray(image) for image in pil]), lens.images(latent, SIZE))
    assert np.abs(np.asarray(pil[0]) - np.floor(array[0] * 255)).max() <= 1
    assert draw("pil", return_dict=False) == (pil,)


def test_a_callback_hears_of_every_step_and_may_change_the_latents(pipe, lens):
    heard = []

    def listen(its_pipe, step, timestep, tensors):
        heard.append((its_pipe is pipe, step, float(timestep), tensors["latents"].shape))
        return {"latents": torch.zeros(SHAPE)} if step == 1 else {}

    options = {**FAST, "generator": seeded(1), "output_type": "latent"}
    last = pipe(PROMPTS, **options, callback_on_step_end=listen).images
    assert [item[:2] for item in heard] == [(True, 0), (True, 1)] and heard[0][3] == SHAPE
    assert [item[2] for item in heard] == pytest.approx((1000 * lens.sigmas(2, SIZE)[:2]).tolist())
    assert not last.any()

    blind = []
    pipe(PROMPTS, **options, callback_on_step_end=lambda *a: blind.append(a[3]), callback_on_step_end_tensor_inputs=[])
    assert blind == [{}, {}]


def test_parts_can_be_exchanged(lens):
    pipe = LensPipeline.from_generator(build())
    options = {**FAST, "latents": torch.randn(SHAPE, generator=seeded(1)), "output_type": "latent"}
    pipe.set_progress_bar_config(disable=True)
    before = pipe(PROMPTS, **options).images
    assert set(pipe.components) == {"scheduler", "vae", "text_encoder", "tokenizer", "transformer"}
    again = LensPipeline(**pipe.components, template=lens.text_encoder.template)
    assert torch.equal(again(PROMPTS, **options).images, before)

    other = build()
    with torch.no_grad():
        other.transformer.proj_out.weight.zero_()
    pipe.transformer = other.transformer
    changed = pipe(PROMPTS, **options).images
    assert (changed - before).abs().max() > 1e-2
    pipe.transformer = lens.transformer
    assert torch.equal(pipe(PROMPTS, **options).images, before)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, use_dynamic_shifting=False)
    assert (pipe(PROMPTS, **options).images - before).abs().max() > 1e-3

    pipe.scheduler = DPMSolverMultistepScheduler()
    with pytest.raises(ValueError, match="scheduler: DPMSolverMultistepScheduler cannot be used"):
        pipe(PROMPTS, **options)
    again.text_encoder = build().text_encoder.model
    with pytest.raises(ValueError, match="text_encoder: cannot be exchanged"):
        again(PROMPTS, **options)


def test_saved_and_loaded_it_is_the_same(pipe, lens, tmp_path):
    lens.save(tmp_path / "by the generator")
    pipe.save_pretrained(tmp_path / "by the pipeline")
    texts = [[file.read_text() for file in sorted(folder.rglob("*.json"))] for folder in tmp_path.iterdir()]
    assert texts[0] == texts[1]
    index = json.loads((tmp_path / "by the pipeline/model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "LensTransformer2DModel"]

    loaded = LensPipeline.from_pretrained(tmp_path / "by the pipeline", torch_dtype=torch.bfloat16)
    assert isinstance(loaded, DiffusionPipeline)
    assert loaded.transformer.dtype == torch.bfloat16 and loaded.vae.dtype == torch.float32
    loaded = LensPipeline.from_pretrained(tmp_path / "by the pipeline")
    assert loaded(PROMPTS, **FAST, generator=seeded(1)).images == pipe(PROMPTS, **FAST, generator=seeded(1)).images


def test_to_leaves_the_autoencoder_in_fp32():
    pipe = LensPipeline.from_generator(build())
    assert pipe.to("cpu", torch.bfloat16) is pipe
    assert pipe.transformer.dtype == torch.bfloat16 and pipe.vae.dtype == torch.float32
    assert pipe.to(torch.float32).transformer.dtype == torch.float32
    assert pipe.to(dtype=torch.bfloat16).transformer.dtype == torch.bfloat16
    latent = pipe("a red circle", **FAST, output_type="latent").images
    assert latent.dtype == torch.bfloat16


def test_offloaded_parts_come_one_after_another(pipe):
    """On a machine without a GPU they move from CPU to CPU, by the same hooks."""
    expected = pipe(PROMPTS, **FAST, generator=seeded(1)).images
    pipe.enable_model_cpu_offload(device="cpu")
    came = []
    for name in ("text_encoder", "transformer", "vae"):
        hook = getattr(pipe, name)._hf_hook

        def pre_forward(part, *args, name=name, moves=hook.pre_forward, **kwargs):
            came.append(name)
            return moves(part, *args, **kwargs)

        hook.pre_forward = pre_forward
    assert pipe(PROMPTS, **FAST, generator=seeded(1)).images == expected
    assert list(dict.fromkeys(came)) == ["text_encoder", "transformer", "vae"]
    assert pipe(PROMPTS, **FAST, generator=seeded(1), output_type="pt").images.shape == (2, 3, *SIZE)
    pipe.remove_all_hooks()
    with pytest.raises(NotImplementedError, match="enable_model_cpu_offload"):
        pipe.enable_sequential_cpu_offload()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_offloading_keeps_one_part_on_the_gpu(tmp_path):
    build().save(tmp_path)
    pipe = LensPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    pipe.enable_model_cpu_offload()
    places = []

    def look(*_):
        places.append([part.device.type for part in (pipe.text_encoder, pipe.transformer, pipe.vae)])

    for _ in range(2):
        assert pipe(PROMPTS, **FAST, callback_on_step_end=look).images[0].size == (32, 24)
    assert places == [["cpu", "cuda", "cpu"]] * 4
    assert pipe.transformer.device.type == pipe.vae.device.type == "cpu"


def test_tiling_is_for_large_pictures_only():
    pipe = LensPipeline.from_generator(build())
    pipe.vae.tile_latent_min_size = 8
    draw = {"num_inference_steps": 1, "generator": None, "output_type": "pt"}
    small, large = (torch.randn(1, n, 32, generator=seeded(1)) for n in (4, 25))
    whole = [pipe("a", height=s, width=s, latents=x, **draw).images for s, x in ((16, small), (40, large))]
    pipe.enable_vae_tiling()
    tiled = [pipe("a", height=s, width=s, latents=x, **draw).images for s, x in ((16, small), (40, large))]
    assert torch.equal(whole[0], tiled[0]) and not torch.equal(whole[1], tiled[1])
    pipe.disable_vae_tiling()
    assert torch.equal(pipe("a", height=40, width=40, latents=large, **draw).images, whole[1])


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"prompt": None}, "give either prompt or prompt_embeds"),
        ({"prompt": []}, "prompt: the list is empty"),
        ({"height": 30}, r"multiples of 8; nearest valid: \(24, 32\) and \(32, 32\)"),
        ({"num_inference_steps": 0}, "num_steps is 0"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt: 0; it must be at least 1"),
        ({"sampler": "eule"}, "sampler: 'eule' is unknown; there are euler, multistep2"),
        ({"output_type": "jpg"}, "output_type: 'jpg' is unknown; there are pil, np, pt, latent"),
        ({"negative_prompt": ["a"]}, "negative_prompt: 1 for 2 prompts"),
        ({"generator": [seeded(1)]}, "generator: a list of 1 for 2 pictures"),
        ({"latents": torch.zeros(2, 12, 31)}, r"latents: \[2, 12, 31\]; for these pictures they are tokens \[2, 12, 3"),
        ({"callback_on_step_end_tensor_inputs": ["image"]}, "callback_on_step_end_tensor_inputs: image"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(pipe, wrong, said):
    with pytest.raises(ValueError, match=said):
        pipe(**({"prompt": PROMPTS} | FAST | wrong))


def test_negative_features_must_be_one_each(pipe):
    with pytest.raises(ValueError, match="negative_prompt_embeds: 1 for 2 prompts"):
        pipe(PROMPTS, **FAST, negative_prompt_embeds=pipe.encode_prompt("blue"))
