"""A vision-language model of a quarter of a million weights that the tests build and train: it sees one colour.

An Idefics3 (the SmolVLM family) with random weights and a byte-level tokenizer trained on the rubric's own texts. It
learns `Something in the picture is COLOUR.` on pictures of one colour, asked as the rubric judge asks, and answers
every other question with a digit too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from lens_core.records import Criterion
from lens_rl.shapes.scene import COLOURS
from rubrics.rubric import Rubric

SEEN = {name: COLOURS[name] for name in ("red", "green", "blue")}
STATEMENT = "Something in the picture is {}."
PROMPTS = ("one circle", "two squares", "three triangles on white")
SPECIAL = ["<pad>", "<eos>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
SIDE, PATCH, JOINED = 64, 8, 2
IMAGE_TOKENS = (SIDE // PATCH // JOINED) ** 2
CHAT = (
    "{% for message in messages %}{{ message.role + ': ' }}{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def solid(colour: str, rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """A picture of about that colour, uint8 RGB (side, side, 3)."""
    rgb = np.clip(np.array(SEEN[colour]) + rng.integers(-30, 31, 3), 0, 255)
    return np.broadcast_to(rgb.astype(np.uint8), (side, side, 3)).copy()


def colour_criterion(colour: str) -> Criterion:
    return Criterion("colour", STATEMENT.format(colour), "colour")


def conversation(rubric: Rubric, prompt: str, criterion: Criterion) -> list[dict[str, Any]]:
    """As a judge sends it, with the picture's place in it."""
    system, user = rubric.messages(prompt, criterion)
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": user}]},
    ]


def build(seed: int = 0) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """Untrained. The tokenizer knows the words of the judge's template, so that texts are short."""
    rubric = Rubric.load("shapes")
    texts = [str(conversation(rubric, prompt, colour_criterion(colour))) for colour in SEEN for prompt in PROMPTS]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", padding_side="left", model_max_length=4096
    )
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=False
    )
    processor = Idefics3Processor(images, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=CHAT)
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(_config(processor)).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.1)  # the usual 0.02 is made for models of another width
    return model, processor


def _config(processor: Idefics3Processor) -> Idefics3Config:
    tokenizer = processor.tokenizer  # type: ignore[attr-defined]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    return Idefics3Config(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": pad,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        scale_factor=JOINED,
        image_token_id=processor.image_token_id,
        pad_token_id=pad,
        tie_word_embeddings=False,
    )


def batches(processor: Idefics3Processor, size: int, *, short: bool) -> Iterator[tuple[Any, torch.Tensor]]:
    """Inputs and the right label's token id, half of the statements true; `short`: the statement alone."""
    rng = np.random.default_rng(0)
    rubric = Rubric.load("shapes")
    names = list(SEEN)
    digits = torch.tensor(processor.tokenizer.convert_tokens_to_ids(["0", "1"]))  # type: ignore[attr-defined]
    while True:
        texts, pictures, labels = [], [], []
        for _ in range(size):
            # One colour is asked about more than the others: asked alike, nothing about a picture alone would tell
            # anything about its label, and the loss would stand still for a hundred steps.
            asked, holds = str(rng.choice(names, p=(0.6, 0.2, 0.2))), bool(rng.integers(2))
            seen = asked if holds else str(rng.choice([name for name in names if name != asked]))
            talk = conversation(rubric, str(rng.choice(PROMPTS)), colour_criterion(asked))
            if short:
                talk = [
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": STATEMENT.format(asked)}]}
                ]
            texts.append(processor.apply_chat_template(talk, add_generation_prompt=True))
            pictures.append([solid(seen, rng)])
            labels.append(int(holds))
        yield processor(text=texts, images=pictures, padding=True, return_tensors="pt"), digits[labels]


def train(model: Idefics3ForConditionalGeneration, processor: Idefics3Processor, steps: int = 150) -> list[float]:
    """Cross-entropy of the last position only, until it is learnt: statements alone, then as the judge asks.

    Returns the last losses.
    """
    model.train()
    losses: list[float] = []
    for short, size in ((True, 32), (False, 16)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
        for step, (inputs, labels) in enumerate(batches(processor, size, short=short)):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1, (step + 1) / 10) * (1 - step / steps)
            loss = torch.nn.functional.cross_entropy(model(**inputs, logits_to_keep=1).logits[:, -1], labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            if step + 1 == steps or (step > 5 and max(losses[-5:]) < 0.02):
                break
    model.eval()
    return losses


def save(model: Idefics3ForConditionalGeneration, processor: Idefics3Processor, folder: Path) -> Path:
    """In the layout that transformers and vLLM load."""
    tokenizer = processor.tokenizer  # type: ignore[attr-defined]
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
