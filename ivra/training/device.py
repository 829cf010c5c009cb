"""Where a run computes, and what of that its numbers depend on."""

import torch

from ivra.backbones import Backbone
from ivra.errors import IvraError, first_line


def usable_device(name: str) -> torch.device:
    """The device called ``name``, as PyTorch names it.

    Raises:
        IvraError: PyTorch does not know it, it is not there, or it holds no numbers (``meta``).
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise IvraError(
            f"cannot use the device '{name}' ({first_line(error)}): try cpu or cuda"
        ) from error
    return device


def environment(backbone: Backbone) -> dict[str, str | int]:
    """What the last digits of a number depend on besides versions and seed.

    Returns:
        ``device``; ``processor``, the GPU's name or the instructions that PyTorch uses on this
        CPU; ``threads``, over which PyTorch shares one operation on the CPU; ``dtype`` of the
        model's parameters; ``matmul``, PyTorch's precision of float32 products.
    """
    device = backbone.device
    processor = device.type
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        processor = torch.backends.cpu.get_cpu_capability()
    return {
        "device": str(device),
        "processor": processor,
        "threads": torch.get_num_threads(),
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "matmul": torch.get_float32_matmul_precision(),
    }
