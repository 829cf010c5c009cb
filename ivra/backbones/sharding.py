"""The body of a model shared out among processes, by PyTorch's FSDP2.

Zhao et al. 2023, *PyTorch FSDP* (arXiv:2304.11277). Each process keeps its part of every frozen
weight; a layer is put together for its pass, forward or backward, and taken apart again.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ivra.attention import LayerReading
from ivra.backbones.hook import latest_reading

if TYPE_CHECKING:
    from ivra.backbones.backbone import Backbone


def shard(backbone: "Backbone", processes: int, device: torch.device) -> None:
    """Keep a share of the body's weights on ``device``, in place of all of them.

    All ``processes`` call it, with the same model in main memory. What the adapters learn and what
    stands outside the body (the head) stays whole in each; the rest is frozen. From then on a pass
    is one of all processes: each has to make as many, on rows of its own.

    Raises:
        IvraError: the model keeps its layers in no list.
    """
    model = backbone.model
    learnt = set() if backbone.adapter is None else set(backbone.learnable)
    for parameter in set(model.parameters()) - learnt:
        parameter.requires_grad_(False)
    whole = learnt | (set(model.parameters()) - set(model.base_model.parameters()))
    mesh = init_device_mesh(device.type, (processes,))
    for block in backbone.blocks:
        # FSDP puts a layer together for a derivative that comes in through its output. One that
        # comes in through what was read of it has to be seen too: hooks run in this order.
        block.register_forward_hook(_with_reading)
        fully_shard(block, mesh=mesh, ignored_params=whole)
        block.register_forward_hook(_without_reading)
    # The embeddings, looked up before the pass, are taken apart with it as layers are.
    fully_shard(model, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    backbone.to(device)
    backbone.sharded = True


def put_together(model: PreTrainedModel) -> None:
    """Bring the weights that belong to no layer, the embeddings, until the next pass is over."""
    cast(FSDPModule, model).unshard()


def gathered(backbone: "Backbone", keep: bool) -> dict[str, Tensor] | None:
    """The weights that :meth:`Backbone.save_pretrained` has to be given, in main memory.

    All processes call it; those that do not ``keep`` them get none. ``None`` where it needs
    nothing: the model is not shared out, or its adapters are saved.
    """
    if not backbone.sharded or backbone.adapter is not None:
        return None
    found = {}
    for name, value in backbone.model.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            found[name] = whole.cpu()
    return found


def _with_reading(
    layer: nn.Module, inputs: tuple[Any, ...], output: Any
) -> tuple[Any, LayerReading | None]:
    return output, latest_reading()


def _without_reading(
    layer: nn.Module, inputs: tuple[Any, ...], output: tuple[Any, LayerReading | None]
) -> Any:
    return output[0]
