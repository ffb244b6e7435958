import pytest
import torch

from stclip.engine.distributed import choose_device, gather, sum_over_ranks, world_size
from stclip.errors import UserError


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "CPU", "mps"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(UserError, match="auto, cpu, cuda or cuda:N expected"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_no_cuda(name: str) -> None:
    with pytest.raises(UserError, match="no CUDA device"):
        choose_device(name)


def test_cpu_and_a_single_process() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert world_size() == 1
    assert gather("value") == ["value"]
    assert sum_over_ranks(torch.ones(2)).tolist() == [1, 1]
