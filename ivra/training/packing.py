"""States as JSON and named tensors, and back."""

from typing import Any

from torch import Tensor

from ivra.errors import IvraError

MARK = "$tensor"
"""The key by which ``state.json`` stands in for a tensor."""


def pack(state: object) -> tuple[Any, dict[str, Tensor]]:
    """``state`` as JSON has it, and its tensors by the names that stand in their places.

    Raises:
        IvraError: it holds anything but dicts with text keys, lists, tuples, tensors, numbers,
            text, booleans and ``None``.
    """
    tensors: dict[str, Tensor] = {}
    memory: set[int] = set()

    def packed(value: object, place: str) -> object:
        if isinstance(value, Tensor):
            found = value.detach().cpu().contiguous()
            if found.untyped_storage().data_ptr() in memory:  # safetensors keeps no shared memory
                found = found.clone()
            memory.add(found.untyped_storage().data_ptr())
            name = place if place not in tensors else f"{place}#{len(tensors)}"
            tensors[name] = found
            return {MARK: name}
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            if MARK not in value:
                return {key: packed(each, f"{place}.{key}") for key, each in value.items()}
        elif isinstance(value, list | tuple):
            return [packed(each, f"{place}.{number}") for number, each in enumerate(value)]
        elif value is None or isinstance(value, str | int | float):
            return value
        raise IvraError(
            f"cannot save a checkpoint: {place} is {type(value).__name__}: expected dicts with "
            "text keys, lists, tensors, numbers, text, booleans and None"
        )

    return packed(state, "state"), tensors


def unpack(facts: object, tensors: dict[str, Tensor]) -> Any:
    """What :func:`pack` made of ``facts`` and ``tensors``; tuples come back as lists.

    Raises:
        ValueError: a tensor that is named is not there.
    """
    if isinstance(facts, dict):
        if set(facts) == {MARK}:
            if facts[MARK] not in tensors:
                raise ValueError(f"there is no tensor {facts[MARK]}")
            return tensors[facts[MARK]]
        return {key: unpack(value, tensors) for key, value in facts.items()}
    return [unpack(value, tensors) for value in facts] if isinstance(facts, list) else facts
