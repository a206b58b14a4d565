"""Training a Lens transformer on latents: flow matching with logit-normal noise levels.

One step: draw a batch of one bucket, noise it, predict the velocity, weigh the loss per image,
clip, step Muon and AdamW, follow with the ema. A run goes on from its last checkpoint, to the bit.

Shapes: B samples, N image tokens, C token channels.
"""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from base_model import flow
from base_model.lens import LensGenerator
from base_model.parameter_sets import blend, exchange
from base_model.pretraining import losses
from base_model.pretraining.loader import Batch, LatentSet
from base_model.pretraining.recipe import PretrainRecipe, Transformer
from lens_core.runs import RunFolder, RunProblem, whole_folder
from lens_core.seeds import seed_of

SIGMA_BINS = 4
MUON_PARTS = ("attn.", "_mlp.")
"""Block matrices that Muon steps; modulation, embeddings and the head stay with AdamW."""

Report = Callable[[int, dict[str, float]], None]


class Trainer:
    """The parts of one run; `train` moves them. `seconds` is the time in training, over all its processes."""

    def __init__(self, recipe: PretrainRecipe, generator: LensGenerator, folder: RunFolder):
        self.recipe, self.generator, self.folder = recipe, generator, folder
        self.module: nn.Module = generator.trainable
        self.ema = [parameter.detach().clone() for parameter in self.module.parameters()]
        self.optimizers = make_optimizers(self.module, recipe.transformer)
        self.step, self.seconds = 0, 0.0
        if saved := folder.checkpoints():
            self._load(saved[-1])
        folder.forget_after(self.step)

    def train(self, corpus: LatentSet, report: Report) -> None:
        """Train to the last step; saves every `save_every` steps and at the end."""
        recipe = self.recipe.transformer
        started = time.perf_counter() - self.seconds
        while self.step < recipe.steps:
            self.step += 1
            batch = corpus.batch(
                self.step,
                size=recipe.batch_size,
                seed=self.recipe.seed,
                dense_share=self.recipe.corpus.dense_share,
                no_text_share=self.recipe.corpus.no_text_share,
            )
            loss_B = self._loss(batch, seed_of(self.recipe.seed, "noise", self.step))
            losses.sum_over_samples(loss_B, len(loss_B)).backward()
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), recipe.clip_norm)
            self._refuse_nan(float(norm))
            self._optimizer_step()
            report(self.step, {"loss": float(loss_B.detach().mean()), "gradient_norm": float(norm)})
            if self.step % self.recipe.save_every == 0 or self.step == recipe.steps:
                self.seconds = time.perf_counter() - started
                self._save()

    @torch.no_grad()
    def validation_loss(self, corpus: LatentSet) -> dict[str, float]:
        """Flow loss of the ema weights on held-out samples, overall and by quarter of sigma."""
        self.swap_ema()
        by_bin: list[list[Tensor]] = [[] for _ in range(SIGMA_BINS)]
        for number, batch in enumerate(corpus.batches(256, seed=0)):
            for place in range(SIGMA_BINS):
                middle = torch.full((len(batch.x0_BNC),), (place + 0.5) / SIGMA_BINS)
                by_bin[place].append(self._loss(batch, seed_of("validation", number, place), middle))
        self.swap_ema()
        means = [float(torch.cat(part).mean()) for part in by_bin]
        return {f"sigma {(i + 0.5) / SIGMA_BINS:.3f}": mean for i, mean in enumerate(means)} | {
            "all": sum(means) / len(means)
        }

    def swap_ema(self) -> None:
        """Exchange the ema with the module's own weights; twice is nothing."""
        exchange(list(self.module.parameters()), self.ema)

    def _loss(self, batch: Batch, seed: int, sigma_B: Tensor | None = None) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        recipe = self.recipe.transformer
        if sigma_B is None:
            sigma_B = flow.logit_normal_sigma(len(batch.x0_BNC), recipe.sigma_mu, recipe.sigma_std, random)
        noise_BNC = torch.randn(batch.x0_BNC.shape, generator=random)
        x_BNC = flow.add_noise(batch.x0_BNC, noise_BNC, sigma_B)
        v_BNC = self.generator.velocity(x_BNC, sigma_B, self._features(batch.texts), batch.size)
        return losses.flow_matching(v_BNC, flow.velocity_target(batch.x0_BNC, noise_BNC))

    def _features(self, texts: list[str]) -> Any:
        """Features of a batch; an empty text has no tokens, as guidance expects at sampling."""
        spoken = [text for text in texts if text]
        nothing = self.generator.unconditional(1)
        parts = [self.generator.encode(spoken), nothing] if spoken else [nothing]
        together = self.generator.collate(parts)
        place = iter(range(len(spoken)))
        return self.generator.select(together, [next(place) if text else len(spoken) for text in texts])

    def _optimizer_step(self) -> None:
        share = _schedule(self.step, self.recipe.transformer)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * share
            optimizer.step()
            optimizer.zero_grad()
        decay = min(self.recipe.transformer.ema_decay, (1 + self.step) / (10 + self.step))
        blend(self.ema, list(self.module.parameters()), decay)

    def _refuse_nan(self, norm: float) -> None:
        if not math.isfinite(norm):
            raise RunProblem(
                f"the gradient of step {self.step} is {norm}; stopped before it could touch the weights. "
                "Try a lower transformer.lr or transformer.muon_lr."
            )

    def _save(self) -> None:
        tensors = {f"module/{name}": parameter.detach() for name, parameter in self.module.named_parameters()}
        names = [name for name, _ in self.module.named_parameters()]
        tensors |= {f"ema/{name}": value for name, value in zip(names, self.ema, strict=True)}
        for number, optimizer in enumerate(self.optimizers):
            for index, fields in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer{number}/{index}/{field}": value for field, value in fields.items()}
        with whole_folder(self.folder.checkpoint(self.step)) as draft:
            save_file({name: value.contiguous() for name, value in tensors.items()}, draft / "state.safetensors")
            (draft / "state.json").write_text(json.dumps({"step": self.step, "seconds": self.seconds}))
        self.folder.prune({self.step})

    def _load(self, step: int) -> None:
        tensors = load_file(self.folder.checkpoint(step) / "state.safetensors")
        with torch.no_grad():
            for (name, parameter), ema in zip(self.module.named_parameters(), self.ema, strict=True):
                parameter.copy_(tensors[f"module/{name}"])
                ema.copy_(tensors[f"ema/{name}"])
        for number, optimizer in enumerate(self.optimizers):
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(f"optimizer{number}/"):
                    _, index, field = name.split("/")
                    moments.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        state = json.loads((self.folder.checkpoint(step) / "state.json").read_text())
        self.step, self.seconds = step, state["seconds"]


def make_optimizers(module: nn.Module, recipe: Transformer) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks' attention and MLP, AdamW for everything else."""
    matrices, others = [], []
    for name, parameter in module.named_parameters():
        is_matrix = parameter.ndim == 2 and any(part in name for part in MUON_PARTS)
        (matrices if is_matrix else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)
    adamw = torch.optim.AdamW(others, lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay)
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return [muon, adamw]


def _schedule(step: int, recipe: Transformer) -> float:
    """Linear warm-up, a plateau, and a linear fall to zero over the last `decay_share` of the steps."""
    rise = min(1.0, step / max(recipe.warmup, 1))
    return rise * min(1.0, (recipe.steps - step + 1) / max(recipe.decay_share * recipe.steps, 1.0))
