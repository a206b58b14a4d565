"""Text features: the residual stream of a few blocks of a frozen GPT-OSS, read while it reads the prompt.

Shapes: B texts, L text tokens kept (prompt and suffix), F captured blocks, D text feature width.
"""

import copy
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GptOssConfig, GptOssForCausalLM, GptOssModel, PreTrainedTokenizerFast

from base_model.files import digest
from base_model.text_template import TRUNCATIONS, TextTemplate

RELEASED_LAYERS = (5, 11, 17, 23)
TEXTS_AT_ONCE = 64
SPECIAL_WORDS = ("<pad>", "<unk>", "<end>")
PAD, END = 0, 2


class PromptCut(UserWarning):
    """Some prompts have more tokens than the template leaves room for."""


@dataclass(frozen=True, slots=True, eq=False)
class TextFeatures:
    """Features of B texts: `text_BLFD`, zero at the padding on the right; `mask_BL`, true at real tokens."""

    text_BLFD: Tensor
    mask_BL: Tensor

    def __len__(self) -> int:
        return len(self.mask_BL)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "TextFeatures":
        return TextFeatures(self.text_BLFD.to(device, dtype), self.mask_BL.to(device))

    def select(self, index_B: Tensor | Sequence[int]) -> "TextFeatures":
        """The rows of an index, repeats allowed, without padding that none of them needs."""
        index = torch.as_tensor(index_B, dtype=torch.long, device=self.mask_BL.device)
        mask = self.mask_BL[index]
        length = int(mask.sum(dim=1).max()) if mask.numel() else 0
        return TextFeatures(self.text_BLFD[:, :length][index], mask[:, :length])

    @staticmethod
    def collate(parts: Sequence["TextFeatures"]) -> "TextFeatures":
        """All rows of several features, in order, padded to the longest."""
        length = max(part.mask_BL.shape[1] for part in parts)
        missing = [length - part.mask_BL.shape[1] for part in parts]
        texts = [F.pad(part.text_BLFD, (0, 0, 0, 0, 0, n)) for part, n in zip(parts, missing, strict=True)]
        masks = [F.pad(part.mask_BL, (0, n), value=False) for part, n in zip(parts, missing, strict=True)]
        return TextFeatures(torch.cat(texts), torch.cat(masks))


class TextEncoder:
    """A frozen GPT-OSS with its tokenizer and template.

    `layers` are zero-based block indices: the output of these blocks is taken as it leaves them, before the
    final norm, which is not what `output_hidden_states` gives for the last block.
    """

    def __init__(
        self,
        model: GptOssForCausalLM | GptOssModel,
        tokenizer: PreTrainedTokenizerFast,
        layers: Sequence[int] = RELEASED_LAYERS,
        template: TextTemplate | None = None,
    ):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.layers = tokenizer, tuple(layers)
        self.template = template or TextTemplate()
        self.body: GptOssModel = model.model if isinstance(model, GptOssForCausalLM) else model
        config = cast(Any, model.config)
        self.width: int = config.hidden_size
        if not self.layers or max(self.layers) >= config.num_hidden_layers or min(self.layers) < 0:
            raise ValueError(
                f"selected_layer_index: {list(self.layers)} must name blocks of a text encoder that has "
                f"{config.num_hidden_layers}, counted from 0"
            )
        self._prefix = self._ids(self.template.rendered_prefix(), markers=True)
        self._suffix = self._ids(self.template.suffix, markers=True)
        self._prefix_read: dict[tuple[torch.device, torch.dtype], DynamicCache] = {}
        if self.template.truncation == "prompt" and self.longest_prompt < 1:
            raise ValueError(
                f"max_length {self.template.max_length} leaves no token for the prompt: prefix and suffix take "
                f"{len(self._prefix)} + {len(self._suffix)}"
            )

    @property
    def longest_prompt(self) -> int:
        """How many tokens of a prompt are read without any loss (393 in the release)."""
        return self.template.max_length - len(self._prefix) - len(self._suffix)

    @property
    def num_dropped(self) -> int:
        """How many leading tokens are read but not kept: the prefix (97 in the release)."""
        return len(self._prefix)

    def token_ids(self, text: str) -> list[int]:
        """What the encoder reads for a prompt: prefix, prompt verbatim, suffix, cut to the template's limit.

        The three are tokenized apart. Special markers stand at both seams, so the whole string gives the same
        ids.
        """
        prompt = self._prompt_ids(text)
        if self.template.truncation == "prompt":
            prompt = prompt[: self.longest_prompt]
        return [*self._prefix, *prompt, *self._suffix][: self.template.max_length]

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """The texts of which, or after which, something is cut."""
        return [text for text in texts if len(self._prompt_ids(text)) > self.longest_prompt]

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """Features [B, L, F, D] in the encoder's dtype and on its device. Warns PromptCut of texts that are cut.

        The empty text is a text: prefix and suffix without a prompt. What has no text at all is not encoded.
        """
        if not texts:
            raise ValueError("texts: at least one is needed")
        if cut := self.too_long(texts):
            warnings.warn(
                f"{len(cut)} of {len(texts)} prompts have more than {self.longest_prompt} tokens, for example "
                f"{cut[0][:40]!r}...: {TRUNCATIONS[self.template.truncation]}",
                PromptCut,
                stacklevel=3,
            )
        ids = [self.token_ids(text)[self.num_dropped :] for text in texts]
        starts = range(0, len(ids), TEXTS_AT_ONCE)
        return TextFeatures.collate([self._encode_ids(ids[start : start + TEXTS_AT_ONCE]) for start in starts])

    def identity(self) -> str:
        """A hash of all that the features of a text depend on: weights, vocabulary, blocks, template."""
        parts = [self._vocabulary(), self.layers, asdict(self.template)]
        return digest(self.model, salt=json.dumps(parts))

    def save(self, model_folder: Path, tokenizer_folder: Path) -> None:
        """Write model, tokenizer and template, as a Lens checkpoint holds them."""
        self.model.save_pretrained(model_folder)
        self.tokenizer.save_pretrained(tokenizer_folder)
        self.template.save(tokenizer_folder)

    def _encode_ids(self, ids: list[list[int]]) -> TextFeatures:
        """Features of what follows the prefix, padded to the longest."""
        weight, length = self.body.embed_tokens.weight, max(map(len, ids))
        length_B = torch.tensor([len(row) for row in ids], device=weight.device)
        mask_BL = torch.arange(length, device=weight.device) < length_B[:, None]
        if not length:
            return TextFeatures(weight.new_zeros(len(ids), 0, len(self.layers), self.width), mask_BL)

        padding = self.tokenizer.pad_token_id
        if padding is None:
            padding = self.tokenizer.eos_token_id or 0
        padded = torch.tensor([row + [padding] * (length - len(row)) for row in ids], device=weight.device)
        captured_BLFD = torch.stack(self._capture(padded, mask_BL), dim=2)
        return TextFeatures(captured_BLFD * mask_BL[:, :, None, None], mask_BL)

    def _capture(self, ids_BL: Tensor, mask_BL: Tensor) -> list[Tensor]:
        """The output [B, L, D] of each chosen block, for texts that follow the prefix."""
        past = self._read_prefix(len(ids_BL))
        visible = F.pad(mask_BL, (self.num_dropped, 0), value=True).long()
        captured: dict[int, Tensor] = {}

        def keep(layer: int):
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                captured[layer] = output[0] if isinstance(output, tuple) else output

            return hook

        hooks = [self.body.layers[layer].register_forward_hook(keep(layer)) for layer in set(self.layers)]
        try:
            self.body(input_ids=ids_BL, attention_mask=visible, past_key_values=past, use_cache=past is not None)
        finally:
            for hook in hooks:
                hook.remove()
        return [captured[layer] for layer in self.layers]

    def _read_prefix(self, rows: int) -> DynamicCache | None:
        """Keys and values of the prefix for a batch, None where there is none.

        Attention is causal and the encoder frozen: what is read before the prompt is computed once, which saves
        more than half of the work on a usual prompt.
        """
        if not self._prefix:
            return None
        weight = self.body.embed_tokens.weight
        if (place := (weight.device, weight.dtype)) not in self._prefix_read:
            cache = DynamicCache(config=self.body.config)
            prefix = torch.tensor([self._prefix], device=weight.device)
            self.body(input_ids=prefix, past_key_values=cache, use_cache=True)
            self._prefix_read = {place: cache}
        past = copy.deepcopy(self._prefix_read[place])
        past.batch_repeat_interleave(rows)
        return past

    def _vocabulary(self) -> dict[str, Any]:
        """What the tokenizer does, without the padding and truncation it was last called with."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        return {name: value for name, value in backend.items() if name not in ("padding", "truncation")}

    def _prompt_ids(self, text: str) -> list[int]:
        return self._ids(text, markers=self.template.keep_markers)

    def _ids(self, text: str, *, markers: bool) -> list[int]:
        if not text:
            return []
        encoding = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not markers)
        return list(cast(Any, encoding)["input_ids"])


def tiny_text_encoder(
    vocabulary_words: Iterable[str],
    hidden: int = 64,
    layers: int = 4,
    seed: int = 0,
    *,
    max_length: int = 512,
) -> TextEncoder:
    """A small frozen random GPT-OSS over whole words, the same for the same words and seed.

    It costs next to nothing to run: no prefix, and `<end>` for a suffix. All of its blocks are captured.
    """
    tokenizer = word_tokenizer(vocabulary_words)
    config = GptOssConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=4096,
        pad_token_id=PAD,
        eos_token_id=END,
    )
    model = GptOssModel(config)
    _randomise(model, torch.Generator().manual_seed(seed))
    template = TextTemplate(prefix="", suffix="<end>", date="", max_length=max_length)
    return TextEncoder(model, tokenizer, range(layers), template)


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a word, lower-case, punctuation apart, `<unk>` for the rest; ids in order of appearance."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    known = dict.fromkeys([*SPECIAL_WORDS, *".,;:!?'\"-()", *(word.lower() for word in words)])
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    backend.normalizer = cast(Any, normalizers.Lowercase())
    backend.pre_tokenizer = cast(
        Any, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


@torch.no_grad()
def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Weights that mix words rather than blur them: embeddings of size 1, matrices 1 / sqrt(inputs), gains 1.

    The initialisation of transformers (0.02 throughout) would leave every block all but silent.
    """
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.fill_(1.0)
        elif "bias" in name or "sinks" in name:
            parameter.zero_()
        elif "embed_tokens" in name:
            parameter.copy_(drawn)
        else:
            # The experts' matrices are [experts, inputs, outputs]; all others are [outputs, inputs].
            inputs = parameter.shape[-2] if "experts" in name else parameter.shape[-1]
            parameter.copy_(drawn / inputs**0.5)
