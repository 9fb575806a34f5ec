"""A small network with all kinds of parameters, and its gradients."""
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel


class Net(torch.nn.Module):
    """conv [24, 8, 3, 3], norm, linear; `spare` is used only if asked for, `frozen` never trains."""

    def __init__(self):
        super().__init__()
        self.conv0 = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.conv = torch.nn.Conv2d(8, 24, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(24)
        self.spare = torch.nn.Linear(24, 48)
        self.frozen = torch.nn.Linear(24, 24).requires_grad_(False)
        self.fc = torch.nn.Linear(24, 48)
        self.use_spare = False

    def forward(self, x):
        x = F.relu(self.norm(self.conv(F.relu(self.conv0(x))))).mean((2, 3))
        return (self.spare if self.use_spare else self.fc)(self.frozen(x))


def make(seed=1, channels_last=False, spare=False):
    torch.manual_seed(seed)
    model = Net()
    model.spare.requires_grad_(spare)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def batch(seed, n=8):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 8, 8, generator=random), torch.randint(0, 48, (n,), generator=random)


def backward(model, seed):
    x, y = batch(seed)
    F.cross_entropy(model(x), y).backward()


def gradients(model):
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


def parallel(model, **options):
    """DistributedDataParallel with several buckets, unless bucket_cap_mb says otherwise. PyTorch's first bucket would
    take 1 MB, which is more than these models have."""
    options = {"bucket_cap_mb": 0.004, **options}
    dist._DEFAULT_FIRST_BUCKET_BYTES = int(options["bucket_cap_mb"] * 2**20)
    return DistributedDataParallel(model, **options)
