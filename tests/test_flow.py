"""Flow-matching maths: golden tables, diffusers as a reference, hand-computed values."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from base_model import flow

MU = {
    256: (1.965567, 1.845929, 1.621607),
    1024: (2.030690, 1.916348, 1.701956),
    2304: (2.139227, 2.033712, 1.835871),
    4096: (2.291180, 2.198022, 2.023351),
    4300: (2.308478, 2.216727, 2.044694),
    4301: (1.184697, 1.184697, 1.184697),
    8100: (1.827754, 1.827754, 1.827754),
}
SIGMAS = {
    (256, 4): (1, 0.955391, 0.877134, 0.704112, 0),
    (4096, 4): (1, 0.967384, 0.908144, 0.767200, 0),
    (8100, 4): (1, 0.949134, 0.861494, 0.674617, 0),
    (4096, 20): (
        *(1, 0.994191, 0.987814, 0.980784, 0.972994, 0.964313, 0.954580, 0.943591, 0.931086, 0.916728),
        *(0.900072, 0.880519, 0.857240, 0.829060, 0.794248, 0.750150, 0.692478, 0.613825, 0.500199),
        *(0.321603, 0),
    ),
    (4096, 1): (1, 0),
}


@pytest.mark.parametrize("num_tokens", MU)
def test_empirical_mu(num_tokens):
    ours = [flow.empirical_mu(num_tokens, num_steps) for num_steps in (4, 20, 50)]
    assert ours == pytest.approx(MU[num_tokens], abs=1e-6)
    assert ours == pytest.approx([compute_empirical_mu(num_tokens, n) for n in (4, 20, 50)], abs=1e-12)


@pytest.mark.parametrize("case", SIGMAS)
def test_golden_sigmas(case):
    sigmas = flow.inference_sigmas(*case)
    assert sigmas.dtype == torch.float32
    assert sigmas.tolist() == pytest.approx(SIGMAS[case], abs=1e-6)


@pytest.mark.parametrize("num_tokens, num_steps", [(256, 4), (4096, 20), (4300, 7), (4301, 7), (25, 1)])
def test_sigmas_are_those_of_diffusers(num_tokens, num_steps):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    base = torch.linspace(1, 1 / num_steps, num_steps).tolist()
    scheduler.set_timesteps(sigmas=base, mu=compute_empirical_mu(num_tokens, num_steps))
    torch.testing.assert_close(
        flow.inference_sigmas(num_tokens, num_steps), scheduler.sigmas.float(), atol=1e-6, rtol=0
    )


def test_constant_shift():
    shifted = flow.scale_sigma(torch.tensor([1.0, 0.5, 0.0]), 3.0)
    assert shifted.tolist() == [1.0, 0.75, 0.0]


def test_noise_velocity_and_clean_sample_fit_together():
    x0, noise = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    sigma = torch.tensor([0.0, 0.3, 1.0])
    x = flow.add_noise(x0, noise, sigma)
    v = flow.velocity_target(x0, noise)
    torch.testing.assert_close(flow.x0_from_velocity(x, v, sigma), x0, atol=1e-6, rtol=1e-6)
    assert torch.equal(x[0], x0[0]) and torch.equal(x[2], noise[2])
    torch.testing.assert_close(flow.add_noise(x0, noise, 0.3)[1], x[1])


def test_training_mu_and_its_sigmas():
    assert flow.training_mu(256) == 1.0 and flow.training_mu(4096) == pytest.approx(1.3)
    assert flow.training_mu(1024) == pytest.approx(1.06)
    sigma = flow.logit_normal_sigma(20000, 1.06, 1.0, torch.Generator().manual_seed(0))
    assert torch.logit(sigma).mean().item() == pytest.approx(1.06, abs=0.03)
    assert torch.logit(sigma).std().item() == pytest.approx(1.0, abs=0.03)
    assert sigma.mean() > 0.6, "a positive mu leans to noise"


def test_guidance_by_hand():
    guided = flow.guide_with_norm_rescale(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]), 2.0)
    assert guided.tolist() == pytest.approx([2.64999, 4.23999], abs=1e-5)


def test_guidance_keeps_each_tokens_norm():
    c, u = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    guided = flow.guide_with_norm_rescale(c, u, 5.0)
    torch.testing.assert_close(guided.norm(dim=-1), c.norm(dim=-1))
    torch.testing.assert_close(flow.guide_with_norm_rescale(c, u, 1.0), c)
    zero = flow.guide_with_norm_rescale(c, 2 * c, 2.0)
    assert zero.isfinite().all() and zero.abs().max() < 1e-3


def test_no_steps_is_refused():
    with pytest.raises(ValueError, match="num_steps"):
        flow.inference_sigmas(256, 0)
