"""Reading a Lens checkpoint folder, strictly: first what is there, then the parts themselves."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from torch import nn
from transformers import GptOssForCausalLM, GptOssModel, PreTrainedTokenizerFast

from base_model.families import family
from base_model.files import (
    ModelProblem,
    compare_shapes,
    named_problems,
    raise_if,
    read_json,
    refuse_pickle,
    stored_shapes,
    weight_files,
)
from base_model.text_features import RELEASED_LAYERS, TextEncoder
from base_model.text_template import TextTemplate
from base_model.transformer import LensTransformer
from base_model.weights import fill, on_meta, stored_config

COMPONENTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
CONFIGS = (
    "model_index.json",
    "transformer/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer.json",
    "scheduler/scheduler_config.json",
)


def quiet() -> None:
    """Loading and saving take no bars of their own: they would break those of whoever works."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True, slots=True)
class Stored:
    """A component as it lies on disk: which model, configured how, its weights in which files."""

    kind: type[nn.Module]
    where: Path
    config: dict[str, Any]
    files: list[Path]

    def load(self, dtype: torch.dtype | None, device: torch.device | str = "cpu") -> Any:
        """The model in evaluation mode, streamed in. Raises ModelProblem for what is not finite."""
        return fill(on_meta(self.kind, self.config), self.files, dtype, device)

    def problems(self) -> list[str]:
        """One line for each way in which configuration or tensors are not those of `kind`."""
        try:
            found = stored_shapes(self.files)
            if other := _other_family(self.kind, found):
                return [f"{self.where}: this is {other}"]
            problems = _config_problems(self.kind, self.config, self.where)
            state = on_meta(self.kind, self.config).state_dict()
            return problems + compare_shapes(
                {key: tuple(value.shape) for key, value in state.items()}, found, self.where
            )
        except ModelProblem as problem:
            return [str(problem)]
        except (TypeError, ValueError, ZeroDivisionError) as error:
            return [f"{self.where}: configuration: {error}"]


def stored_transformer(folder: Path, other: Path | None = None) -> Stored:
    """The transformer of a checkpoint folder, or an `other` one: a folder of its own, or one .safetensors file.

    A single file's configuration is the one it carries, else the checkpoint folder's, else that of the release.
    """
    where, file = folder / "transformer", other
    if file is None or file.is_dir():
        return _stored(LensTransformer, file or where)
    stored_shapes([file])
    config = stored_config(file)
    if config is None:
        config = read_json(where / "config.json") if (where / "config.json").exists() else {}
    return Stored(LensTransformer, file, config, [file])


def stored_vae(folder: Path) -> Stored:
    return _stored(AutoencoderKLFlux2, folder / "vae")


def check_files(folder: Path, *, without: Sequence[str] = ()) -> None:
    """Name every file that is missing, and every component whose weights are pickles.

    The parts named in `without` are not looked at.
    """
    if not folder.is_dir():
        raise ModelProblem(f"{folder}: {_not_a_folder(folder)}")
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").exists() else {}
    if "Lens" not in (pipeline := index.get("_class_name", "Lens")):
        raise ModelProblem(f"{folder}: this is the folder of a {pipeline}, not of a LensPipeline")
    configs = [name for name in CONFIGS if Path(name).parts[0] not in without]
    problems = [f"{folder / name}: no such file" for name in configs if not (folder / name).exists()]
    for component, stem in COMPONENTS.items():
        if component in without:
            continue
        try:
            weight_files(folder / component, stem)
        except ModelProblem as problem:
            problems.append(str(problem))
    raise_if(folder, problems)


def check_tensors(folder: Path, parts: Sequence[Stored]) -> None:
    """Compare stored keys and shapes of the parts with what their configurations want."""
    raise_if(folder, [problem for part in parts for problem in part.problems()])


def selected_layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The blocks of the text encoder that a transformer of this configuration reads, counted from 0."""
    return tuple(config.get("selected_layer_index", RELEASED_LAYERS))


def load_text_encoder(folder: Path, layers: Sequence[int], device: torch.device | str) -> TextEncoder:
    """GPT-OSS with tokenizer and template, in the dtype it is stored in: it is frozen, and its features are large.

    MXFP4 stays as it is where transformers has kernels for it (an NVIDIA GPU and the package `kernels`) and is
    made bf16 elsewhere. The weights go straight to `device`, since packed ones cannot be moved there later.
    """
    where = folder / "text_encoder"
    config = read_json(where / "config.json")
    kind: Any = GptOssModel if config.get("architectures") == ["GptOssModel"] else GptOssForCausalLM
    try:
        model, report = kind.from_pretrained(
            where,
            dtype="auto",
            device_map={"": device},
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer", local_files_only=True)
        template = TextTemplate.load(folder / "tokenizer")
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ModelProblem(f"{folder}: text_encoder or tokenizer cannot be read: {error}") from error
    raise_if(folder, _stored_wrongly(where, report))
    return TextEncoder(model, tokenizer, layers, template)


def _stored(kind: type[nn.Module], where: Path) -> Stored:
    return Stored(kind, where, read_json(where / "config.json"), weight_files(where, "diffusion_pytorch_model"))


def _not_a_folder(path: Path) -> str:
    if not path.exists():
        return "there is no such folder"
    refuse_pickle(path)
    return (
        f"a file, not a folder; a Lens model is a folder with {', '.join(COMPONENTS)}, tokenizer and scheduler. A "
        f"transformer in one file is laid over such a folder: 'FOLDER + {path}'"
    )


def _other_family(kind: type[nn.Module], keys: Iterable[str]) -> str | None:
    """What the keys belong to, where that is not `kind`."""
    own = {LensTransformer: "a Lens transformer", AutoencoderKLFlux2: "an autoencoder"}[kind]
    found = family(keys)
    return f"{found}, not {own}" if found not in (own, None) else None


def _config_problems(kind: type[nn.Module], config: dict[str, Any], where: Path) -> list[str]:
    if kind is not LensTransformer:
        return []
    problems = []
    if config.get("_class_name", "LensTransformer") not in ("LensTransformer", "LensTransformer2DModel"):
        problems.append(f"{where}: _class_name is {config['_class_name']!r}, not LensTransformer2DModel")
    if unknown := [name for name in config if not name.startswith("_") and name not in _known_fields()]:
        problems.append(f"{where}: unknown field {', '.join(unknown)}")
    return problems


def _known_fields() -> set[str]:
    return set(inspect.signature(LensTransformer.__init__).parameters) - {"self"}


def _stored_wrongly(where: Path, report: Mapping[str, Any]) -> list[str]:
    """One line for each kind of tensor that transformers says it could not place."""
    kinds = {
        "missing": "missing_keys",
        "unexpected": "unexpected_keys",
        "of another shape": "mismatched_keys",
    }
    return named_problems(
        {kind: [str(key) for key in sorted(report.get(field) or [])] for kind, field in kinds.items()}, where
    )
