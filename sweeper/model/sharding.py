"""A model whose weights are spread over the processes of a trial (FSDP2, arXiv 2304.11277).

Every decoder layer is gathered for its own forward and backward pass, the rest of the model for the whole
pass. Gradients are summed, not averaged: losses are divided by the target tokens of the whole effective
batch already.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sweeper.errors import ModelError
from sweeper.model.distributed import World

Result = TypeVar("Result")


def shard(model: PreTrainedModel, world: World, device: torch.device) -> PreTrainedModel:
    """Spread the weights over all processes; each keeps its part on its own device.

    Raises:
        ModelError: an architecture that does not name its layers.
    """
    mesh = init_device_mesh(device.type, (world.size,))
    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} does not say what its layers are, so it cannot be spread over "
            f"{world.size} GPUs; set compute.gpus_per_trial: 1",
            code="model.unsupported",
        )
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    whole: Any = model
    whole.run_inside = MethodType(_run, model)
    register_fsdp_forward_method(model, "run_inside")
    return model


def _run(model: torch.nn.Module, function: Callable[[torch.nn.Module], Result]) -> Result:
    return function(model)


def run_unsharded(model: torch.nn.Module, function: Callable[[torch.nn.Module], Result]) -> Result:
    """Call a function of the model that uses parts of it; while it runs, sharded weights are whole."""
    run: Callable[..., Result] | None = getattr(model, "run_inside", None)
    return function(model) if run is None else run(function)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether forward passes are a matter of all processes."""
    return hasattr(model, "run_inside")


class Lockstep:
    """Forward passes of a model that several processes hold together, and must therefore make together.

    A process that has finished its own makes idle passes until all have.
    """

    def __init__(self, model: PreTrainedModel, world: World, idle: Callable[[], None]) -> None:
        self.model = model
        self._world = world
        self._idle = idle

    def forward(self, **inputs: Any) -> Any:
        """One forward pass of this process."""
        if self._world.size > 1:
            self._world.any(True, self.model.device)
        return self.model(**inputs)

    def wait(self) -> None:
        """Be idle until all processes have made their last pass."""
        while self._world.size > 1 and self._world.any(False, self.model.device):
            self._idle()


def local_shard(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor, sharing its storage; a tensor that is whole is its own part."""
    if isinstance(tensor, DTensor):
        part: torch.Tensor = tensor.to_local()
        return part.detach()
    return tensor.detach()


def full_tensor(parameter: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """What the parts of all processes are together, laid out like a parameter."""
    if not isinstance(parameter, DTensor):
        return part
    spread = DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    return spread.full_tensor()
