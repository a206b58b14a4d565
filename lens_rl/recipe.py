"""The configuration of one RL run. Defaults are the published recipe of Lens where it states one."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lens_core.recipes import Strict

RECIPES = Path(__file__).parent / "recipes"

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Dollars = Annotated[float, Field(ge=0.0)]
Side = Annotated[int, Field(ge=1)]


class Prompts(Strict):
    """What to ask for: drawn from a taxonomy tree, a built set, or files of your own."""

    tree: str | None = None
    """Name of a tree in `taxonomy/trees/` that says its prompts itself, or the path of a YAML file."""
    set: str | None = None
    """Name of a set in `taxonomy/sets/`, or the path of a prompt file; a prompt's id decides which split it is in."""
    file: str | None = None
    """Prompt file (.jsonl, .parquet or .txt) to train on; then give the two below too."""
    validation_file: str | None = None
    test_file: str | None = None
    train: Count = 1024
    """Prompts drawn for training, of a tree only; the run goes through them in a new order every epoch."""
    validation: Count = 64
    """Prompts for selection and the stop rule."""
    test: Count = 256
    """Prompts touched once, for the numbers of the closing table."""
    per_step: Count = 48

    @model_validator(mode="after")
    def one_source(self) -> "Prompts":
        if [self.tree, self.set, self.file].count(None) != 2:
            raise ValueError("give one of prompts.tree, prompts.set and prompts.file")
        if self.file and not (self.validation_file and self.test_file):
            raise ValueError("prompts.file needs prompts.validation_file and prompts.test_file beside it")
        return self


class RubricChoice(Strict):
    path: str
    """Name of a rubric in `rubrics/`, or the path of a YAML file."""


class Price(Strict):
    """US dollars per million tokens."""

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
    """Input that the provider's cache held; None: as `input`."""
    cache_write: Dollars | None = None
    """Input that was written to its cache; None: as `input`."""


class Endpoint(Strict):
    """A language model and where it answers."""

    base_url: str | None = None
    """Of an OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`; None is OpenAI itself."""
    model: str | None = None
    """The name that the endpoint serves it by, or a folder for a model in process; None: the profile's first."""
    profile: str | None = None
    """What is known of the model: a name in `lens_rl/judges/profiles/` or a path; None: the one that lists the model,
    else `generic`."""
    api_key_env: str | None = None
    """Environment variable that holds the key; the key itself never enters a file. None: OPENAI_API_KEY for OpenAI, and
    no key for any other endpoint, so that one vendor's key is not shown to another."""
    timeout_seconds: Positive = 60.0
    """A try that takes longer is given up; the client makes the next one."""
    reasoning_effort: str | None = None
    """One of those that the profile lists; None: the profile's own."""

    @field_validator("base_url")
    @classmethod
    def no_password(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^/@?#]+(/[^@?#]*)?", url):
            raise ValueError("write http://HOST:PORT/v1, without user, password or query; keys belong in api_key_env")
        return url

    @field_validator("api_key_env")
    @classmethod
    def a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("give the name of an environment variable that holds the key, never the key")
        return name


class Judge(Endpoint):
    """Who decides. Swapping the judge is these three lines: backend, base_url, model."""

    backend: str = "openai_chat"
    """One of the built-in backends, or `python: path/to/file.py:Class`."""
    request: Literal["per_criterion", "per_image"] | None = None
    """One request a criterion, as in the paper, or all criteria of a picture in one; None: the profile's choice."""
    probabilities: bool | None = None
    """True: refuse a judge that gives none; False: do not ask for them; None: where the judge has them."""
    longest_side: Side | None = None
    """Pictures are made smaller than this before they are sent; None: the profile's choice."""
    concurrency: Count = 64
    max_error_share: Share = 0.1
    """The run pauses when more than this share of a step's verdicts are errors."""
    budget_usd: Positive | None = None
    """The most that this judge may cost over the whole run, restarts included; None: no limit."""
    price: Price | None = None
    """What the model costs, where `lens_rl/judges/prices.yaml` does not know it or your contract differs."""
    answers_from: str | None = None
    """Verdict store that the backend `replay` answers from."""


class HeldOutJudge(Judge):
    """A second judge that watches the first one; what it says never enters the reward."""

    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Of each step's pictures; at least one is shown to it."""


class Rollout(Strict):
    """How the old policy makes pictures."""

    images_per_prompt: Annotated[int, Field(ge=2)] = 24
    num_steps: Count = 10
    sampler: Literal["euler", "multistep2"] = "multistep2"
    sizes: tuple[tuple[Side, Side], ...]
    """(height, width) choices."""
    size_mode: Literal["within_group", "per_group"] = "per_group"
    """Whether the images of one prompt differ in size, or all images of a prompt share one."""
    batch_size: Count = 24
    """Images generated, and trained on, at once."""


class RewardChoice(Strict):
    kind: str = "rubric"
    """`rubric`, or `python: path/to/file.py:Class`."""
    weight: Positive = 1.0
    min_coverage: Share = 0.8
    """An image with a smaller share of valid verdicts has no reward."""


class Nft(Strict):
    """DiffusionNFT; see `lens_rl/nft.py` for the symbols."""

    nft_beta: Positive = 1.0
    clip: Positive = 5.0
    """Advantages are clipped to +-clip."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 1e-4
    """Weight of the pull to the frozen start; 0 saves its forward."""
    std_over: Literal["step", "group"] = "step"
    timesteps: Literal["stratified", "reference"] = "stratified"
    """Stratified high-noise timesteps, or the reference code's nine of ten."""
    num_timesteps: Count = 2
    """Per image; of `stratified` only."""
    high_noise_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Noisy part of the sampler's grid to train on; of `stratified` only."""
    noise: Literal["per_image", "per_group"] = "per_group"
    """Whether the images of a group are noised alike; alike compares them on equal terms."""
    old_schedule: Literal["on_policy", "ramp", "late"] = "ramp"


class Policy(Strict):
    kind: Literal["lora", "full"] = "lora"
    rank: Count = 64
    alpha: Count = 128
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9


class Optimizer(Strict):
    lr: Positive = 3e-4
    lr_decay: Literal["constant", "linear"] = "constant"
    """`linear` falls to zero at the last step."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    clip_norm: Positive = 1.0


class Evaluation(Strict):
    """Pictures with fixed seeds, made by the EMA weights."""

    every: Count = 20
    """Steps between validations."""
    images_per_prompt: Count = 1
    test_images_per_prompt: Count = 2
    num_steps: Count = 20
    sampler: Literal["euler", "multistep2"] = "euler"
    guidance: Annotated[float, Field(ge=1.0)] = 1.0


class Guards(Strict):
    """When to stop by oneself. Validation prompts only; the best checkpoint is handed back."""

    max_drop: Positive = 0.05
    """Stop when the validation reward is this far below its best ..."""
    patience: Count = 2
    """... in this many validations in a row."""
    max_norm_ratio: Positive = 1.3
    """Stop when |v| / |v_ref| leaves [1 / this, this]."""
    min_diversity: Share = 0.5
    """Stop when the pictures of a group spread less than this share of what the start spread."""
    max_gap: Positive = 0.1
    """Stop when the judge's reward has risen this much more than the held-out judge's on the same pictures."""


class RlRecipe(Strict):
    name: str
    model: str
    """`shapes` for the embedded checkpoint, a folder in the diffusers layout, a run, each with files over it: see
    `lens_rl.models.resolve`."""
    features: str | None = None
    """Folder of a feature cache (`lens-rl features cache`) that holds all prompts: the text encoder is not loaded."""
    seed: Annotated[int, Field(ge=0)] = 0
    steps: Count
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of the model; 0 leaves torch's choice."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward; bf16 keeps in fp32 whatever trains."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block and run the block again in the backward pass: little memory, more time."""
    save_every: Count = 20
    prompts: Prompts
    rubric: RubricChoice
    judge: Judge
    held_out_judge: HeldOutJudge | None = None
    """None: no second judge watches the run."""
    rollout: Rollout
    rewards: tuple[RewardChoice, ...] = (RewardChoice(),)
    nft: Nft = Nft()
    policy: Policy = Policy()
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation = Evaluation()
    guards: Guards = Guards()

    @model_validator(mode="after")
    def rewards_given(self) -> "RlRecipe":
        if not self.rewards:
            raise ValueError("rewards is empty: give at least one, for example [{kind: rubric}]")
        return self
