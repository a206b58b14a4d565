"""Text features on disk, so that whoever trains or samples needs no text encoder in memory.

A cache is a folder:

    cache.json                   what the features depend on besides the text
    shard-<hash>.safetensors     features of up to 64 texts

A shard has one tensor [L, F, D] a text, unpadded and in the encoder's dtype, under the hash of the text; its
metadata has the texts and the checksums. Every text is encoded alone, so that its features do not depend on what
it was cached with. Shards appear whole or not at all, and their names are made from their texts: an interrupted
job goes on where it was, and two jobs may add to one folder.

Shapes: B texts, L text tokens kept (prompt and suffix), F captured blocks, D text feature width.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from base_model.checkpoint import check_files, load_text_encoder, quiet, selected_layers
from base_model.files import ModelProblem, read_json, weight_files
from base_model.text_features import PromptCut, TextEncoder, TextFeatures
from base_model.text_template import TextTemplate
from lens_core.runs import whole_file, write_whole

ORIGIN_FILE = "cache.json"
TEXTS_PER_SHARD = 64
NOT_NEEDED = ("vae", "scheduler", "transformer", "model_index.json")
"""What a checkpoint need not have for its prompts to be encoded; of the transformer the configuration will do."""
BLOCK, BLOCKS = 2**16, 256

Watch = Callable[[int, int, str], None]
"""(texts done, texts in all, the text at hand)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the features depend on besides the text."""

    encoder: str
    """`TextEncoder.identity()` of the encoder in memory."""
    files: str
    """`files_identity` of what it was read from, which can be compared without reading the weights."""
    layers: tuple[int, ...]
    width: int
    template: TextTemplate

    def save(self, folder: Path) -> None:
        write_whole(folder / ORIGIN_FILE, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Origin":
        path = folder / ORIGIN_FILE
        if not path.exists():
            raise ModelProblem(f"{folder}: there is no feature cache; {_command(folder)} makes one")
        found = read_json(path)
        if set(found) != set(cls.__slots__):
            raise ModelProblem(f"{path}: its fields must be {', '.join(cls.__slots__)}")
        if not isinstance(found["template"], dict) or not isinstance(found["layers"], list):
            raise ModelProblem(f"{path}: template must be an object, layers a list")
        template = TextTemplate.from_fields(found["template"], path)
        return cls(**(found | {"layers": tuple(found["layers"]), "template": template}))


class FeatureCache:
    """The reading side: stands in for the `TextEncoder` whose features it holds.

    Raises ModelProblem for a folder that is no cache, and for a damaged shard.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.origin = Origin.load(self.path)
        self.layers, self.width, self.template = self.origin.layers, self.origin.width, self.origin.template
        self._model = "MODEL"
        self._entries = {text: entry for shard in _shards(self.path) for text, entry in _entries(shard)}

    @classmethod
    def for_model(cls, path: str | Path, model: Path, layers: Sequence[int]) -> "FeatureCache":
        """The cache, when the checkpoint folder `model`, whose transformer reads `layers`, may use it.

        The checkpoint may lack the text encoder's files; those that are there must be the ones of the cache.
        """
        cache = cls(path)
        cache._model = str(model)
        if problems := _differences(cache.origin, model, layers):
            raise ModelProblem(f"{path}: not a feature cache for {model}: {'; '.join(problems)}")
        return cache

    def __len__(self) -> int:
        return len(self._entries)

    def missing(self, texts: Iterable[str]) -> list[str]:
        """The texts that are not there, each once, in order."""
        return [text for text in dict.fromkeys(texts) if text not in self._entries]

    def require(self, texts: Iterable[str]) -> None:
        """Raise one ModelProblem for all texts that are not there."""
        if missing := self.missing(texts):
            raise ModelProblem(
                f"{self.path}: {len(missing)} texts are not in this feature cache, for example {missing[0]!r}; "
                f"{_command(self.path, self._model)} adds them"
            )

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """What the encoder would give: features [B, L, F, D] in its dtype, on the CPU."""
        if not texts:
            raise ValueError("texts: at least one is needed")
        self.require(texts)
        return TextFeatures.collate([self._read(text) for text in texts])

    def identity(self) -> str:
        """That of the encoder which made the features."""
        return self.origin.encoder

    def summary(self) -> dict[str, Any]:
        """Counts and origin as plain data, from the shards' headers."""
        dtypes, tokens, size = set(), 0, 0
        for shard in _shards(self.path):
            size += shard.stat().st_size
            with safe_open(shard, framework="pt") as stored:
                for key in stored.keys():  # noqa: SIM118
                    features = stored.get_slice(key)
                    dtypes.add(features.get_dtype())
                    tokens += features.get_shape()[0]
        counts = {"texts": len(self), "tokens": tokens, "bytes": size, "dtype": "/".join(sorted(dtypes))}
        return {"path": str(self.path), **counts, **asdict(self.origin)}

    def _read(self, text: str) -> TextFeatures:
        shard, checksum = self._entries[text]
        try:
            with safe_open(shard, framework="pt") as stored:
                features_LFD = stored.get_tensor(_key(text))
        except (SafetensorError, OSError) as error:
            raise _damaged(shard, error) from error
        if _checksum(features_LFD) != checksum:
            raise _damaged(shard, f"the features of {text[:40]!r} are not those that were written")
        mask_BL = torch.ones(1, len(features_LFD), dtype=torch.bool)
        return TextFeatures(features_LFD[None], mask_BL)


def cache_features(
    path: Path, model: Path, texts: Iterable[str], *, device: torch.device | str = "cpu", watch: Watch | None = None
) -> tuple[FeatureCache, list[str]]:
    """Encode the texts that the cache at `path` lacks, with the text encoder of the checkpoint folder `model`.

    Returns the cache, and those of the added texts that were cut. The encoder is only loaded when there is
    something to encode. Raises ModelProblem for a cache of another encoder, RunProblem for a full disk; what was
    written before stays.
    """
    quiet()
    check_files(model, without=NOT_NEEDED)
    layers = selected_layers(read_json(model / "transformer/config.json"))
    known = FeatureCache.for_model(path, model, layers) if (path / ORIGIN_FILE).exists() else None
    wanted = list(dict.fromkeys(texts))
    missing = known.missing(wanted) if known else wanted
    if known and not missing:
        return known, []
    encoder = load_text_encoder(model, layers, device)
    if known is None:
        _origin(encoder, model).save(path)
    for start in range(0, len(missing), TEXTS_PER_SHARD):
        shard: dict[str, Tensor] = {}
        for done, text in enumerate(missing[start : start + TEXTS_PER_SHARD], start):
            shard[text] = _features(encoder, text)
            if watch:
                watch(len(wanted) - len(missing) + done + 1, len(wanted), text)
        _write_shard(path, shard)
    return FeatureCache.for_model(path, model, layers), encoder.too_long(missing)


def files_identity(model: Path) -> str:
    """A hash of a checkpoint's tokenizer and text encoder files, without reading all of the weights.

    Of a weight file it reads the size and 256 evenly spaced blocks of 64 KiB, the header among them: enough for a
    key, not a proof of equality.
    """
    total = hashlib.sha256()
    for name in ("tokenizer/tokenizer.json", "text_encoder/config.json"):
        total.update((model / name).read_bytes())
    for file in weight_files(model / "text_encoder", "model"):
        size = file.stat().st_size
        total.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stored:
            for place in range(0, size, max(BLOCK, size // BLOCKS)):
                stored.seek(place)
                total.update(stored.read(BLOCK))
    return total.hexdigest()


def _origin(encoder: TextEncoder, model: Path) -> Origin:
    return Origin(
        encoder=encoder.identity(),
        files=files_identity(model),
        layers=encoder.layers,
        width=encoder.width,
        template=encoder.template,
    )


def _differences(origin: Origin, model: Path, layers: Sequence[int]) -> list[str]:
    """Why features of this origin are not those that the checkpoint would make."""
    problems = []
    if origin.layers != tuple(layers):
        problems.append(f"it holds the blocks {list(origin.layers)}, the transformer reads {list(layers)}")
    if (model / "tokenizer").is_dir():
        here = asdict(TextTemplate.load(model / "tokenizer"))
        fields = [name for name, value in asdict(origin.template).items() if value != here[name]]
        if fields:
            problems.append(f"it was made with another template: {', '.join(fields)}")
    if (model / "text_encoder").is_dir() and origin.files != files_identity(model):
        problems.append("it was made by another text encoder or tokenizer")
    return problems


def _features(encoder: TextEncoder, text: str) -> Tensor:
    """[L, F, D] on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptCut)  # `cache_features` returns all of these at the end
        features_LFD = encoder.encode([text]).text_BLFD[0].cpu().contiguous()
    if not features_LFD.isfinite().all():
        raise ModelProblem(f"the text encoder gives values that are not finite for {text!r}; nothing was written of it")
    return features_LFD


def _write_shard(folder: Path, features: dict[str, Tensor]) -> None:
    listed = [[text, _checksum(tensor)] for text, tensor in features.items()]
    name = hashlib.sha256("".join(map(_key, features)).encode()).hexdigest()[:16]
    tensors = {_key(text): tensor for text, tensor in features.items()}
    with whole_file(folder / f"shard-{name}.safetensors") as draft:
        draft.write_bytes(save(tensors, {"texts": json.dumps(listed)}))


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.safetensors"))


def _entries(shard: Path) -> Iterator[tuple[str, tuple[Path, str]]]:
    """(text, (shard, checksum)) of every text of a shard; only its header is read."""
    try:
        with safe_open(shard, framework="pt") as stored:
            listed = json.loads(stored.metadata()["texts"])
            keys = set(stored.keys())
        for text, checksum in listed:
            if _key(text) not in keys:
                raise KeyError(f"no features of {text[:40]!r}")
            yield text, (shard, checksum)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(shard, error) from error


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _damaged(shard: Path, error: object) -> ModelProblem:
    return ModelProblem(
        f"{shard}: a damaged shard of a feature cache ({error}); delete it and start {_command(shard.parent)} again: "
        "only its texts will be encoded anew"
    )


def _command(path: Path, model: str = "MODEL") -> str:
    return f"`lens-rl features cache --prompts FILE --model {model} --out {path}`"
