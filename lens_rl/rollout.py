"""The old policy makes pictures: which sizes, which seeds, in which batches.

Every picture has a seed of its own, made from the run's seed and its place in the run, so it does
not depend on what else is in its batch or on what was made before.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from base_model.generator import Features, Generator
from base_model.sampling import sample
from lens_core.records import Prompt, Sample, Size
from lens_core.seeds import seed_of


@dataclass(frozen=True, slots=True)
class Order:
    """One picture to be made: of which prompt, as which image of its group, how large, from which seed."""

    prompt: Prompt
    group: int
    index: int
    size: Size
    seed: int


def plan(
    prompts: Sequence[Prompt], *, images_per_prompt: int, sizes: Sequence[Size], size_mode: str, seed: int
) -> list[Order]:
    """The orders of one step, group by group.

    `per_group` gives all images of a prompt one size, `within_group` deals the sizes out inside a
    group; both go round the list, so that every size is used equally often.
    """
    first = seed_of(seed, "size") % len(sizes)
    return [
        Order(
            prompt=prompt,
            group=group,
            index=index,
            size=sizes[(first + (group if size_mode == "per_group" else group + index)) % len(sizes)],
            seed=seed_of(seed, group, index),
        )
        for group, prompt in enumerate(prompts)
        for index in range(images_per_prompt)
    ]


def batches_by_size(orders: Sequence[Order], batch_size: int) -> list[list[Order]]:
    """Batches of one size each, sizes in order of first appearance, orders in their own order."""
    by_size: dict[Size, list[Order]] = {}
    for order in orders:
        by_size.setdefault(order.size, []).append(order)
    return [
        same_size[start : start + batch_size]
        for same_size in by_size.values()
        for start in range(0, len(same_size), batch_size)
    ]


class FeatureBank:
    """Text features by prompt text, encoded once: the encoder is frozen.

    At Lens' size a prompt's features take a megabyte or two on the generator's device, so not all are kept.
    """

    def __init__(self, generator: Generator, *, capacity: int = 512):
        self._generator, self._capacity = generator, capacity
        self._known: dict[str, Features] = {}

    def __call__(self, texts: Sequence[str]) -> Features:
        """One row a text, in order."""
        distinct = list(dict.fromkeys(texts))
        if len(self._known) + len(distinct) > self._capacity:
            self._known.clear()
        for text in distinct:
            if text not in self._known:
                self._known[text] = self._generator.encode([text])
        rows = {text: row for row, text in enumerate(distinct)}
        together = self._generator.collate([self._known[text] for text in distinct])
        return self._generator.select(together, torch.tensor([rows[text] for text in texts]))


@torch.no_grad()
def roll_out(
    generator: Generator,
    features: FeatureBank,
    orders: Sequence[Order],
    *,
    num_steps: int,
    sampler: str,
    batch_size: int,
    guidance: float = 1.0,
    negative: str = "",
) -> Iterator[tuple[Order, Sample]]:
    """Pictures as they are finished, a batch at a time, by whatever role is in place.

    Guidance leads away from `negative`, or from no text at all where it is blank.
    """
    for batch in batches_by_size(orders, batch_size):
        size = batch[0].size
        latent_BNC = sample(
            generator,
            features([order.prompt.text for order in batch]),
            size,
            [order.seed for order in batch],
            num_steps=num_steps,
            sampler=sampler,
            guidance=guidance,
            negative=features([negative] * len(batch)) if negative.strip() else None,
        )
        images = generator.images(latent_BNC, size)
        for order, image, latent_NC in zip(batch, images, latent_BNC, strict=True):
            yield order, Sample(order.prompt.id, image, latent_NC, size, order.seed)


def diversity(made: Iterable[tuple[Order, Sample]]) -> float:
    """How much the pictures of one prompt and size differ: root mean pixel variance, in [0, 1].

    NaN where no prompt has two pictures of one size.
    """
    alike: dict[tuple[int, Size], list[torch.Tensor]] = {}
    for order, one in made:
        alike.setdefault((order.group, order.size), []).append(torch.from_numpy(one.image).float() / 255)
    spreads = [
        torch.stack(images).var(dim=0, correction=1).mean().sqrt() for images in alike.values() if len(images) > 1
    ]
    return float(torch.stack(spreads).mean()) if spreads else float("nan")
