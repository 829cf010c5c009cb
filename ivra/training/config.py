"""The configuration of a training run: flat, named, checked whole before anything starts."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)

from ivra.attention import LEVELS, NORMALISERS, READINGS, check_levels
from ivra.backbones import Dtype, Loading, Lora
from ivra.errors import IvraError, brief, unknown_name
from ivra.losses import (
    AOPC_BINS,
    DIVERGENCES,
    TOPK_GRADIENTS,
    Divergence,
    check_options,
    parse_criteria,
)
from ivra.tasks import CLASSIFICATION, DOC_STRIDE, MAX_ANSWER_LENGTH, QuestionAnswering, Task
from ivra.training.combining import (
    COMBINERS,
    NORMALISATIONS,
    PREFERENCE,
    Mixing,
    Normalise,
    check_mixing,
)
from ivra.training.pairs import numbers_of

Percent = Annotated[float, Field(gt=0, le=100)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Weights = dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


WHITENED_RATE = 0.05
"""Learning rate of whitened coordinates as a share of that of the coefficients."""


class TrainConfig(BaseModel):
    """Everything that decides what a training run does.

    Every field is a flag of ``ivra train`` (``--eval-data`` for ``eval_data``; ``--option
    comp.form=kl``, repeatable, for ``options``) and a key of its YAML file. Unknown keys and
    values out of range raise a ``ValueError``: pydantic's, or from :func:`make_config` one of
    one line.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True)

    criteria: str = Field("sim,suff", description="criteria with weights: sim,suff:0.5")
    options: dict[str, dict[str, Any]] = Field({}, description="of criteria: comp.form=kl")
    combine: str = Field("sum", description="how criteria are mixed: " + ", ".join(COMBINERS))
    combine_on: Literal["module", "all"] = Field(
        "module", description="parameters whose gradients are compared and aggregated"
    )
    normalise: Normalise = Field(
        "auto", description="what losses are divided by: " + ", ".join(NORMALISATIONS[1:])
    )
    final_weights: Weights = Field({}, description="of criteria at the end: suff=0.1")
    bound: Weights = Field({}, description="of the loss of criteria (constrained): suff=0.05")
    bound_lr: Positive = Field(0.05, description="learning rate of the multipliers (constrained)")
    model: str = Field("tiny-electra", description="tiny-electra, a folder or a hub id")
    revision: str | None = Field(None, description="branch, tag or commit of the model's hub id")
    dtype: Dtype = Field("auto", description="of the model's weights: auto = as they are stored")
    load_in_8bit: StrictBool = Field(False, description="linear layers in 8 bits (bitsandbytes)")
    load_in_4bit: StrictBool = Field(False, description="linear layers in 4 bits (NF4)")
    gradient_checkpointing: StrictBool = Field(
        False, description="compute layers again in the backward pass: less memory, more time"
    )
    lora: StrictBool = Field(False, description="train LoRA adapters and the head, not the model")
    lora_r: Count = Field(8, description="rank of the adapters")
    lora_alpha: Count = Field(8, description="scale of the adapters, over their rank")
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="dropout before the adapters in stage 1"
    )
    target_modules: tuple[str, ...] = Field(
        (), description="linear layers that get adapters (default: the family's)"
    )
    fsdp: StrictBool = Field(
        False, description="share the frozen body's weights out among the processes (FSDP2)"
    )
    data: str = Field("builtin", description="builtin, a file, a folder or a hub data set")
    eval_data: str | None = Field(None, description="rows for validation (default: data's dev)")
    text_column: str | None = Field(None, description="column that holds the text")
    pair_column: str | None = Field(None, description="column that holds the second text")
    label_column: str | None = Field(None, description="column that holds the label")
    max_length: Count = Field(128, description="longest row in tokens; the rest is cut off")
    doc_stride: Annotated[int, Field(ge=0)] = Field(
        DOC_STRIDE, description="tokens that windows of a long context share (questions)"
    )
    max_answer_length: Count = Field(
        MAX_ANSWER_LENGTH, description="longest answer in tokens (questions)"
    )
    question_tokens: Literal["protected", "explainable"] = Field(
        "protected", description="whether they may have saliency and be removed (questions)"
    )

    train: Literal["module", "backbone", "both"] = Field(
        "module", description="what the criteria train"
    )
    init_module: tuple[str, ...] | None = Field(
        None, description="runs whose modules training starts from, averaged: runs/a,runs/b"
    )
    seed: Seed = Field(0, description="seed of every random choice")
    batch_size: Count = Field(32, description="rows a step")
    batching: Literal["shuffled", "by-length"] = Field(
        "shuffled",
        description="which rows share a step: any, or those of like length (faster; not for "
        "criteria that compare rows, as cons does)",
    )
    batch_tokens: Count | None = Field(
        None, description="at most this many tokens a step, padding counted, instead of rows"
    )
    gradient_accumulation_steps: Count = Field(
        1, description="batches that a step adds up, one after another"
    )
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest gradient norm")
    skip_nonfinite: bool = Field(
        False, description="leave steps with a NaN or an infinity out instead of stopping"
    )

    finetune: Literal["auto", "always", "never"] = Field(
        "auto", description="stage 1, the task: auto = if the classification head is new"
    )
    finetune_epochs: Positive | None = Field(
        None, description="epochs of stage 1 (default: 3, or 24 for a tiny model)"
    )
    finetune_lr: Positive | None = Field(
        None, description="learning rate of stage 1 (default: 5e-5, 2e-4 with lora, 1e-3 if tiny)"
    )

    finetune_weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="weight decay of stage 1 (default: 0.01, or 0.3 for a tiny model)"
    )

    finetune_removal: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="share of rows that lose tokens in stage 1 (default: 0, or 0.2 if tiny)",
    )

    epochs: Positive = Field(6.0, description="epochs of stage 2, the criteria")
    max_steps: Count | None = Field(None, description="at most this many steps of stage 2")
    lr: Positive = Field(0.02, description="learning rate of the attention module")
    whiten: StrictBool = Field(
        False,
        description="steps of the attention module in coordinates that all move the saliency "
        "alike, at a twentieth of lr",
    )
    backbone_lr: Positive = Field(2e-5, description="learning rate of the backbone in stage 2")
    schedule: Literal["linear", "step", "constant"] = Field(
        "linear", description="how learning rates decay; step: by --decay every two epochs"
    )
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="factor every two epochs of the step schedule"
    )
    average: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="share of stage 2, its end, whose weights are averaged (default: 0, or 0.5 if "
        "no criterion selects, as with sim alone)",
    )
    validations: Count = Field(10, description="how often stage 2 is validated")
    validation_rows: Count = Field(400, description="at most this many rows of validation")

    levels: tuple[str, ...] = Field(
        ("feature", "head", "layer", "value"), description="of feature,head,layer,value,readout"
    )
    value_hidden: Annotated[int, Field(ge=0)] = Field(
        0, description="hidden units of the value level"
    )
    by_class: StrictBool = Field(
        True, description="value and readout level learn weights for each predicted class"
    )
    reading: str = Field("gains", description="what NORM runs over: " + ", ".join(READINGS))
    coefficients_norm: str = Field("softmax", description="NORM of the coefficients")
    saliency_norm: str = Field("softmax", description="NORM onto the simplex over tokens")

    bins: tuple[Percent, ...] = Field(
        AOPC_BINS, min_length=1, description="percent of tokens of comp and suff"
    )
    topk_gradient: str = Field(
        "sampled", description="gradient of the cut: " + ", ".join(TOPK_GRADIENTS)
    )
    removal: Literal["auto", "attention", "embedding"] = Field(
        "auto", description="how training removes tokens: auto = the task's own way"
    )

    student: str | None = Field(None, description="model of sim's students (default: the model)")
    student_count: Count = Field(3, description="students that sim teaches in turn")
    student_rows: Count = Field(500, description="rows that sim's students learn from")
    student_pool: Count | None = Field(
        None, description="rows of which each of sim's students draws its own (default: all share)"
    )
    student_lr: Positive | None = Field(
        None,
        description="learning rate of sim's students (default: 5e-5, 2e-4 with lora, 1e-3 if tiny)",
    )
    student_schedule: Literal["constant", "linear"] = Field(
        "constant", description="of student_lr, over a student's life"
    )
    student_life: Count = Field(
        480, description="steps after which one of sim's students starts anew"
    )
    student_beta: Positive = Field(5.0, description="weight of the students' divergence term")
    student_divergence: Divergence = Field(
        "kl", description="of a student's saliency from the model's: " + ", ".join(DIVERGENCES)
    )

    @field_validator("criteria")
    @classmethod
    def _criteria_known(cls, text: str) -> str:
        parse_criteria(text)
        return text

    @field_validator("final_weights", "bound", mode="before")
    @classmethod
    def _from_pairs(cls, value: object) -> object:
        return numbers_of(value)

    @field_validator("levels", "bins", "init_module", "target_modules", mode="before")
    @classmethod
    def _from_commas(cls, value: object) -> object:
        return (
            tuple(filter(None, (part.strip() for part in value.split(","))))
            if isinstance(value, str)
            else value
        )

    @field_validator("levels")
    @classmethod
    def _levels_known(cls, levels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_one_of("level", level, LEVELS) for level in levels)

    @field_validator("reading")
    @classmethod
    def _reading_known(cls, name: str) -> str:
        return _one_of("reading", name, READINGS)

    @field_validator("coefficients_norm", "saliency_norm")
    @classmethod
    def _norm_known(cls, name: str) -> str:
        return _one_of("normaliser", name, tuple(NORMALISERS))

    @field_validator("topk_gradient")
    @classmethod
    def _gradient_known(cls, name: str) -> str:
        return _one_of("top-k gradient", name, TOPK_GRADIENTS)

    @model_validator(mode="after")
    def _options_fit(self) -> "TrainConfig":
        self.options = check_options(self.criteria, self.options)
        return self

    @model_validator(mode="after")
    def _criteria_can_be_mixed(self) -> "TrainConfig":
        names = [weighted.name for weighted in parse_criteria(self.criteria)]
        check_mixing(self.mixing, names, task=self.train != "module")
        return self

    @model_validator(mode="after")
    def _module_is_trained_to_prefer(self) -> "TrainConfig":
        if self.preferences and self.train == "backbone":
            raise IvraError(
                "combine is preference, which trains the attention module: expected train to be "
                "module or both, got backbone"
            )
        return self

    @model_validator(mode="after")
    def _module_is_trained_whitened(self) -> "TrainConfig":
        for name, value in {"reading": "gains", "value_hidden": 0, "preferences": ()}.items():
            if self.whiten and (getattr(self, name) != value or self.train == "backbone"):
                raise IvraError(
                    "whiten is of a module whose scores are linear in what it learns: expected "
                    "train module or both, reading gains, no value_hidden and no preferences; got "
                    f"train {self.train}, {name} {getattr(self, name)}"
                )
        return self

    @model_validator(mode="after")
    def _module_can_be_built(self) -> "TrainConfig":
        if not self.levels and self.train != "backbone":
            raise IvraError("levels is empty: a module that is trained needs one at least")
        check_levels(self.levels, self.reading, self.value_hidden)
        return self

    @model_validator(mode="after")
    def _model_can_be_loaded(self) -> "TrainConfig":
        if self.load_in_8bit and self.load_in_4bit:
            raise IvraError("load_in_8bit and load_in_4bit are both set: expected one of them")
        if (self.load_in_8bit or self.load_in_4bit) and not self.lora:
            name = "load_in_8bit" if self.load_in_8bit else "load_in_4bit"
            raise IvraError(
                f"{name} without lora: quantised weights cannot be trained: add lora, whose "
                "adapters can"
            )
        if self.fsdp and (self.load_in_8bit or self.load_in_4bit):
            raise IvraError(
                "fsdp with load_in_8bit or load_in_4bit: quantised weights cannot be shared out; "
                "leave one of them out"
            )
        for name in () if self.lora else ("lora_r", "lora_alpha", "lora_dropout", "target_modules"):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                shown = ",".join(value) if isinstance(value, tuple) else value
                raise IvraError(f"{name} is {shown} without lora: add lora, or leave {name} out")
        return self

    @property
    def loading(self) -> Loading:
        """How the model is brought into memory."""
        lora = Lora(self.lora_r, self.lora_alpha, self.lora_dropout, self.target_modules)
        return Loading(
            revision=self.revision,
            dtype=self.dtype,
            bits=8 if self.load_in_8bit else 4 if self.load_in_4bit else None,
            lora=lora if self.lora else None,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    def rate(self, tiny: bool) -> float:
        """The learning rate of a model that learns the task, where none is set."""
        return 1e-3 if tiny else 2e-4 if self.lora else 5e-5

    @property
    def preferences(self) -> tuple[str, ...]:
        """The criteria among which the module shall know every trade-off."""
        names = tuple(weighted.name for weighted in parse_criteria(self.criteria))
        return names if self.combine == PREFERENCE and len(names) > 1 else ()

    @property
    def mixing(self) -> Mixing:
        """How this run mixes its criteria."""
        return Mixing(self.combine, self.normalise, self.final_weights, self.bound, self.bound_lr)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task, as this run would have it."""
        explained = self.question_tokens == "explainable"
        answering = QuestionAnswering(self.doc_stride, self.max_answer_length, explained)
        return CLASSIFICATION, answering

    @property
    def module_lr(self) -> float:
        """The learning rate of the attention module."""
        return self.lr * WHITENED_RATE if self.whiten else self.lr

    @property
    def is_tiny(self) -> bool:
        """Whether the model is one of the built-in random ones."""
        return self.model.startswith("tiny-")

    @property
    def student_is_tiny(self) -> bool:
        """Whether students start from one of the built-in random models."""
        return (self.student or self.model).startswith("tiny-")


def _one_of(kind: str, name: str, choices: tuple[str, ...]) -> str:
    if name not in choices:
        raise unknown_name(kind, name, list(choices))
    return name


def make_config(values: dict[str, object], where: str = "configuration") -> TrainConfig:
    """A checked configuration.

    Raises:
        IvraError: in one line, the first value that does not fit, what was expected, and
            ``where`` it stood.
    """
    for key in values:
        if key not in TrainConfig.model_fields:
            raise unknown_name(f"key in {where}", str(key), list(TrainConfig.model_fields))
        is_switch = TrainConfig.model_fields[key].annotation is bool
        if isinstance(values[key], bool) != is_switch:  # which pydantic would read as 0 or 1
            expected = "true or false" if is_switch else "no true or false"
            raise IvraError(f"{where}: {key} is {values[key]}: expected {expected}")
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, IvraError):
            raise cause from error
        name = ".".join(str(part) for part in first["loc"])
        raise IvraError(
            f"{where}: {name} is {brief(first['input'])}: {first['msg'].lower()}"
        ) from error
