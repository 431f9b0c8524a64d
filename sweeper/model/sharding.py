"""Shards a model over the processes of a trial (FSDP2, arXiv 2304.11277).

Every decoder layer is gathered for its own forward and backward pass, the rest of the model for the whole
pass. Gradients are summed, not averaged, because losses are already divided by the target tokens of the
whole effective batch.
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
    """Shard the weights over all processes; each keeps its part on its own device.

    Raises:
        ModelError: the architecture does not declare its decoder layers.
    """
    mesh = init_device_mesh(device.type, (world.size,))
    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} does not declare its decoder layers, so it cannot be sharded over "
            f"{world.size} GPUs; set `compute.gpus_per_trial: 1`",
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
    """Call a function that uses submodules of the model, with sharded weights gathered meanwhile."""
    run: Callable[..., Result] | None = getattr(model, "run_inside", None)
    return function(model) if run is None else run(function)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether the model is sharded, so that all processes must take part in each forward pass."""
    return hasattr(model, "run_inside")


class Lockstep:
    """Synchronizes the forward passes of a model that is sharded over several processes.

    A process that has finished its own passes makes idle passes until all have finished.
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
        """Make idle passes until all processes have made their last pass."""
        while self._world.size > 1 and self._world.any(False, self.model.device):
            self._idle()


def local_shard(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a tensor, sharing its storage; the tensor itself if it is not sharded."""
    if isinstance(tensor, DTensor):
        part: torch.Tensor = tensor.to_local()
        return part.detach()
    return tensor.detach()


def full_tensor(parameter: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """The full tensor that the parts of all processes form, with the layout of a parameter."""
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
