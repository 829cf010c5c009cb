"""LoRA adapters by peft: made, written, read, merged, and begun anew on a shared base."""

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ivra.backbones.families import Family
from ivra.backbones.loading import Lora
from ivra.backbones.quantised import HALF, bits_of, quantised_parts
from ivra.errors import IvraError, first_line

if TYPE_CHECKING:  # peft takes its time to load
    from peft import LoraConfig, PeftModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SEED = "seed-"
"""What the revision of a tiny model is: the seed its weights are drawn from."""


class Base(NamedTuple):
    """The model that adapters adapt, by its folder or hub id and its revision (of a tiny model its
    seed), and how many bits a weight of its linear layers has (0: it is not quantised)."""

    model: str
    revision: str | None
    bits: int


_LEARNT = ("lora_", "modules_to_save.")


@dataclass(frozen=True)
class SavedAdapter:
    """A folder of ``save_pretrained`` that holds adapters: where it is and what they adapt."""

    folder: Path
    base: str
    revision: str | None

    @property
    def seed(self) -> int | None:
        """The seed of a tiny base."""
        text = (self.revision or "").removeprefix(_SEED)
        return int(text) if (self.revision or "").startswith(_SEED) and text.isdigit() else None


def revision_of(seed: int) -> str:
    """The revision of a tiny model drawn from ``seed``."""
    return f"{_SEED}{seed}"


def saved_adapter(source: str) -> SavedAdapter | None:
    """What the folder ``source`` says of its adapters; ``None`` where it is none of adapters.

    Raises:
        IvraError: its configuration cannot be read, is of no LoRA, or names no base.
    """
    path = Path(source) / CONFIG
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise IvraError(f"cannot read {path}: {first_line(error)}") from error
    found = found if isinstance(found, dict) else {}
    kind, base = found.get("peft_type"), found.get("base_model_name_or_path")
    revision = found.get("revision")
    if kind != "LORA":
        raise IvraError(f"{path}: peft_type is {kind!r}: expected LORA, the adapters ivra reads")
    if not isinstance(base, str) or not base.strip():
        raise IvraError(
            f"{path}: base_model_name_or_path is {base!r}: expected the folder or hub id of the "
            "model that is adapted"
        )
    return SavedAdapter(Path(source), base, revision if isinstance(revision, str) else None)


def linear_names(model: PreTrainedModel) -> list[str]:
    """The ends of the names of the body's linear layers, each once, as LoRA takes them."""
    found = [
        name.rpartition(".")[2]
        for name, module in model.base_model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    ]
    return list(dict.fromkeys(found))


def with_new_adapter(
    model: PreTrainedModel,
    family: Family,
    lora: Lora,
    learnt: Sequence[str],
    base: str,
    revision: str | None,
    seed: int,
) -> "PeftModel":
    """``model`` with adapters drawn from ``seed`` that change no logit yet.

    ``learnt`` names the modules that are trained and saved whole: the head.

    Raises:
        IvraError: a target that is no linear layer of the model, or a family of which none is
            declared; the message lists the linear layers.
    """
    from peft import LoraConfig

    targets = lora.target_modules or family.lora_targets
    names = linear_names(model)
    unknown = [target for target in targets if not _matched(model, target)]
    if unknown or not targets:
        what = f"no linear layer is called '{unknown[0]}'" if unknown else "none is declared"
        raise IvraError(
            f"target_modules: {what} in {base} (model family '{model.config.model_type}'): "
            f"expected some of {', '.join(names)}"
        )
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        modules_to_save=list(learnt),
        base_model_name_or_path=base,
        revision=revision,
        task_type="SEQ_CLS" if family.pooled != "none" else "QUESTION_ANS",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _adapted(model, config)


def with_saved_adapter(
    model: PreTrainedModel, saved: SavedAdapter, new: Sequence[str]
) -> "PeftModel":
    """``model`` with the adapters and the head of a folder.

    ``new`` names the parts of the head that the base itself lacks. Only safetensors are read.

    Raises:
        IvraError: files that are missing or damaged, weights that do not fit, and a head that is
            neither in the folder nor in the base: it would be drawn anew.
    """
    from peft import LoraConfig

    tensors = _tensors(saved.folder)
    lost = [name for name in new if not any(f".{name}." in key for key in tensors)]
    if lost:
        raise IvraError(
            f"{saved.folder} lacks the weights of the head '{lost[0]}', which {saved.base} lacks "
            f"too: it would be drawn anew; save the adapters with modules_to_save=['{lost[0]}']"
        )
    try:
        config = LoraConfig.from_pretrained(str(saved.folder))
        config.inference_mode = False
        adapted = _adapted(model, config)
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise IvraError(
            f"cannot put the adapters of {saved.folder} on {saved.base} ({first_line(error)}): "
            f"expected a {CONFIG} of LoRA that fits it"
        ) from error
    fill(adapted, saved.folder)
    return adapted


def fill(adapted: "PeftModel", folder: Path) -> None:
    """Put the saved weights of a folder into adapters and head.

    Raises:
        IvraError: they are missing, damaged, or others than the adapters have.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    tensors = _tensors(folder)
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    for name, tensor in expected.items():
        if name not in tensors:
            raise IvraError(f"{folder} lacks the weights {name}: expected whole adapters")
        if tensors[name].shape != tensor.shape:
            raise IvraError(
                f"{folder}: {name} has the shape {tuple(tensors[name].shape)}: expected "
                f"{tuple(tensor.shape)} for this base and number of classes"
            )
    more = sorted(set(tensors) - set(expected))
    if more:
        raise IvraError(f"{folder} holds {more[0]}, which {CONFIG} does not speak of")
    set_peft_model_state_dict(adapted, tensors)


def _tensors(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise IvraError(
            f"cannot load the adapters of {folder} ({first_line(error)}): expected {WEIGHTS}"
        ) from error


def save_adapter(adapted: "PeftModel", folder: Path) -> None:
    """Adapters, head and the name of the base as peft writes them, and the model's configuration.

    The configuration says nothing of quantisation: it is that of the base as it is stored.
    """
    adapted.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    base = base_model(adapted)
    config = copy.deepcopy(base.config)
    config.architectures = [type(base).__name__.removeprefix("FSDP")]  # its class, where shared out
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(folder)


def _adapted(model: PreTrainedModel, config: "LoraConfig") -> "PeftModel":
    from peft import PeftModel

    named = config.target_modules  # or a pattern
    targets: set[str] = named if isinstance(named, set) else set()
    layers = [layer for target in targets for layer in _matched(model, target)]
    config.fan_in_fan_out = any(isinstance(layer, Conv1D) for layer in layers)
    adapted = PeftModel(model, config)
    for parameter in learnt(adapted):
        if parameter.dtype in HALF:  # AdamW loses small steps in half precision
            parameter.data = parameter.data.float()
    for module in _trained_wholes(adapted):
        module.register_forward_pre_hook(_in_its_own_numbers)
    return adapted


def base_model(adapted: "PeftModel") -> PreTrainedModel:
    """The model inside, whose layers the adapters are part of."""
    return cast(PreTrainedModel, adapted.get_base_model())


def base_of(adapted: "PeftModel") -> Base:
    """What the adapters adapt."""
    config = adapted.peft_config["default"]
    return Base(str(config.base_model_name_or_path), config.revision, bits_of(base_model(adapted)))


def learnt(adapted: "PeftModel") -> list[nn.Parameter]:
    """The parameters of adapters and head, whether or not they are being trained."""
    return [p for name, p in adapted.named_parameters() if any(part in name for part in _LEARNT)]


def _trained_wholes(adapted: "PeftModel") -> list[nn.Module]:
    """The copies of whole modules that are trained: the head."""
    return [
        module
        for name, module in adapted.named_modules()
        if name.rpartition(".")[0].endswith(".modules_to_save")
    ]


def _in_its_own_numbers(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a float32 head is given by a body of half precision."""
    dtype = next(module.parameters()).dtype
    return tuple(
        value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in inputs
    )


def shared_parts(adapted: "PeftModel") -> Iterable[object]:
    """Everything that adapters on the same base can have in common: all that is not learnt."""
    own = {id(parameter) for parameter in learnt(adapted)}
    yield from (p for p in adapted.parameters() if id(p) not in own)
    yield from adapted.buffers()
    yield from quantised_parts(base_model(adapted))


def begin_anew(adapted: "PeftModel", seed: int) -> None:
    """Draw adapters and head from ``seed``, as if nothing had been learnt."""
    from peft.tuners.lora import LoraLayer

    base = base_model(adapted)
    gpus = [base.device] if base.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), torch.no_grad():
        torch.manual_seed(seed)
        for module in adapted.modules():
            if isinstance(module, LoraLayer):
                module.reset_lora_parameters("default", True)  # type: ignore[no-untyped-call]
        for whole in _trained_wholes(adapted):
            for part in whole.modules():
                for parameter in part.parameters(recurse=False):
                    parameter._is_hf_initialized = False  # type: ignore[attr-defined]
                base._init_weights(part)
    for parameter in learnt(adapted):
        parameter.requires_grad_(True)


def twin(part: nn.Module, adapted: "PeftModel", kept: Iterable[object] = ()) -> Any:
    """A copy of ``part`` that has the base of ``adapted``, and ``kept``, in common with it."""
    return copy.deepcopy(part, {id(shared): shared for shared in (*shared_parts(adapted), *kept)})


def _matched(model: PreTrainedModel, target: str) -> list[nn.Module]:
    """The linear layers of the body that LoRA would adapt for ``target``, as peft reads it."""
    return [
        module
        for name, module in model.base_model.named_modules()
        if (name == target or name.endswith(f".{target}"))
        and isinstance(module, (nn.Linear, Conv1D))
    ]
