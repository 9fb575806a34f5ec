"""A communication hook for torch.nn.parallel.DistributedDataParallel that exchanges compressed gradients.

    state = atomo.torch.State("auto:ratio=64", model)
    ddp = DistributedDataParallel(model)
    ddp.register_comm_hook(state, atomo.torch.hook)
"""
from .hook import hook
from .state import State

__all__ = ["State", "hook"]
