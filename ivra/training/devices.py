"""Processes that train one model together, by accelerate: each its share of a step's rows.

Gradients are added up by hand after the backward pass, not by a wrapper such as
``DistributedDataParallel``: explanations, reruns and students call the model's parts in ways of
their own, and a wrapper watches its own ``forward`` alone.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load, save
from torch import Tensor

from ivra.errors import IvraError


class Devices:
    """This process among the ``count`` that train together; ``index`` 0 alone writes.

    Every process calls every method at the same moment, with values of its own. A process that is
    alone gets its own value back.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.count = 1 if accelerator is None else int(accelerator.num_processes)
        self.index = 0 if accelerator is None else int(accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def exchange(self, blob: bytes) -> list[bytes]:
        """The bytes of every process, in their order."""
        if self._accelerator is None:
            return [blob]
        device = self._accelerator.device
        sizes = self._accelerator.gather(torch.tensor([len(blob)], device=device)).tolist()
        padded = torch.zeros(max(sizes), dtype=torch.uint8, device=device)
        padded[: len(blob)] = torch.frombuffer(bytearray(blob or b"\0"), dtype=torch.uint8)[
            : len(blob)
        ].to(device)
        rows = self._accelerator.gather(padded[None]).cpu()
        return [row[:size].numpy().tobytes() for row, size in zip(rows, sizes, strict=True)]

    def values(self, value: Any) -> list[Any]:
        """What JSON can hold, of every process."""
        if self.count == 1:
            return [value]
        return [json.loads(blob) for blob in self.exchange(json.dumps(value).encode())]

    def any(self, flag: bool) -> bool:
        """Whether it is so in some process."""
        return any(self.values(flag))

    def first(self, call: Callable[[], Any]) -> Any:
        """What ``call`` gives the main process, which alone calls it, or the error it raises there.

        Raises:
            IvraError: that of the main process, in all of them.
        """
        if self.count == 1:
            return call()
        found: Any = None
        said = None
        if self.is_main:
            try:
                found = call()
            except IvraError as error:
                said = str(error)
        found, said = self.values([found, said])[0]
        if said is not None:
            raise IvraError(said)
        return found

    def tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Named tensors of every process, on the CPU."""
        if self.count == 1:
            return [tensors]
        own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return [load(blob) for blob in self.exchange(save(own))]

    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient by the sum over the processes; one that nobody has stays away."""
        if self._accelerator is None:
            return
        has = torch.tensor(
            [float(p.grad is not None) for p in parameters], device=self._accelerator.device
        )
        known = self._accelerator.reduce(has, "sum").tolist()
        shared = [p for p, count in zip(parameters, known, strict=True) if count]
        for dtype in dict.fromkeys(p.dtype for p in shared):
            group = [p for p in shared if p.dtype == dtype]
            slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            flat = self._accelerator.reduce(torch.cat([s.reshape(-1) for s in slopes]), "sum")
            places = flat.split([p.numel() for p in group])
            for parameter, slope in zip(group, places, strict=True):
                parameter.grad = slope.view_as(parameter)

    def rows(self, tensor: Tensor) -> tuple[Tensor, int]:
        """``tensor (B, L, ...)`` of every process, one under the other, and where the own begin.

        Shorter ones are padded with 0 at the end of ``L``. A gradient flows to the own rows alone.
        """
        if self.count == 1:
            return tensor, 0
        found = [each["rows"].to(tensor.device) for each in self.tensors({"rows": tensor})]
        found[self.index] = tensor
        length = max(each.shape[1] for each in found)
        start = sum(len(each) for each in found[: self.index])
        return torch.cat([_longer(each, length) for each in found]), start


ALONE = Devices()


def _longer(tensor: Tensor, length: int) -> Tensor:
    if tensor.shape[1] == length:
        return tensor
    blank = tensor.new_zeros(len(tensor), length - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, blank], dim=1)


def processes() -> int:
    """How many a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes, before anything is read."""
    return int(os.environ.get("RANK", "0")) == 0


def accelerate_shards() -> bool:
    """Whether ``accelerate launch`` was told to shard the model its own way."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")


def devices_of(name: str) -> tuple[Devices, str]:
    """The processes that ``accelerate launch`` or ``torchrun`` started, and this one's device.

    ``name`` is the device as PyTorch names it; of ``cuda`` each process of a machine gets its own.

    Raises:
        IvraError: several processes and one numbered device.
    """
    if processes() == 1:
        return ALONE, name
    if ":" in name:
        raise IvraError(
            f"{processes()} processes cannot share the device '{name}': expected its "
            f"kind, '{name.partition(':')[0]}'"
        )
    accelerator = Accelerator(cpu=name == "cpu")
    return Devices(accelerator), str(accelerator.device)


def share(count: int, parts: int, part: int) -> slice:
    """Of ``count`` rows those that fall to ``part`` of so many parts, all nearly as large."""
    return slice(part * count // parts, (part + 1) * count // parts)
