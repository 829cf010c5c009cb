"""Devices that can be used, and what a record says of where it was computed."""

import pytest
import torch

from ivra.backbones import load_backbone
from ivra.errors import IvraError
from ivra.training import environment
from ivra.training.device import usable_device


@pytest.mark.parametrize("name", ["cpu", "cpu:0"])
def test_devices_that_are_there(name: str) -> None:
    assert usable_device(name) == torch.device(name)


@pytest.mark.parametrize(
    "name", ["meta", "gpu", "", " cpu", "cuda:99", "hpu", "xla", "privateuseone", "c\nd"]
)
def test_devices_that_cannot_be_used_are_one_line(name: str) -> None:
    """Without numbers, unknown, not there, without their package."""
    if name.startswith("cuda") and torch.cuda.device_count() > 99:
        pytest.skip("there is a device")
    with pytest.raises(IvraError, match="try cpu or cuda") as caught:
        usable_device(name)
    assert f"cannot use the device '{name}'" in str(caught.value)
    assert "\n" not in str(caught.value).replace(name, "")


def test_the_environment_is_what_it_is_at_the_time() -> None:
    backbone = load_backbone("tiny-electra")
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found = environment(backbone)
            assert found["threads"] == count
    finally:
        torch.set_num_threads(threads)
    assert found["device"] == "cpu"
    assert found["dtype"] == "float32"
    assert found["processor"] == torch.backends.cpu.get_cpu_capability()
    assert found["matmul"] == torch.get_float32_matmul_precision()
    assert environment(backbone.to(torch.bfloat16))["dtype"] == "bfloat16"
