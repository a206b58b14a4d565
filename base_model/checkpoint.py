"""Reading a Lens checkpoint folder, strictly: first what is there, then the parts themselves."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from transformers import GptOssForCausalLM, GptOssModel, PreTrainedTokenizerFast

from base_model.files import ModelProblem, compare_shapes, raise_if, read_json, stored_shapes, weight_files
from base_model.text_features import RELEASED_LAYERS, TextEncoder
from base_model.text_template import TextTemplate
from base_model.transformer import LensTransformer

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


def check_files(folder: Path, *, without: Sequence[str] = ()) -> None:
    """Name every file that is missing, and every component whose weights are pickles.

    The parts named in `without` are not looked at.
    """
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


def check_tensors(folder: Path) -> None:
    """Compare stored keys and shapes of transformer and autoencoder with what their configurations want."""
    problems = []
    for component, kind in {"transformer": LensTransformer, "vae": AutoencoderKLFlux2}.items():
        where = folder / component
        config = read_json(where / "config.json")
        if kind is LensTransformer:
            problems += _config_problems(config, where / "config.json")
        try:
            with torch.device("meta"):
                model = cast(Any, kind).from_config(config)
            wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
            found = stored_shapes(weight_files(where, COMPONENTS[component]))
            problems += compare_shapes(wanted, found, where)
        except ModelProblem as problem:
            problems.append(str(problem))
        except (TypeError, ValueError, ZeroDivisionError) as error:
            problems.append(f"{where / 'config.json'}: {error}")
    raise_if(folder, problems)


def selected_layers(folder: Path) -> tuple[int, ...]:
    """The blocks of the text encoder that the transformer reads, counted from 0."""
    return tuple(read_json(folder / "transformer/config.json").get("selected_layer_index", RELEASED_LAYERS))


def load_transformer(folder: Path, dtype: torch.dtype) -> LensTransformer:
    where = folder / "transformer"
    return cast(Any, LensTransformer).from_pretrained(where, torch_dtype=dtype, use_safetensors=True).eval()


def load_vae(folder: Path) -> AutoencoderKLFlux2:
    where = folder / "vae"
    return cast(Any, AutoencoderKLFlux2).from_pretrained(where, torch_dtype=torch.float32, use_safetensors=True)


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


def _config_problems(config: dict[str, Any], where: Path) -> list[str]:
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
    return [
        f"{where}: {len(keys)} {kind}: {', '.join(map(str, sorted(keys)))}"
        for kind, field in kinds.items()
        if (keys := report.get(field))
    ]
