"""Times training steps of DistributedDataParallel by itself, with PyTorch's hooks, and with atomo's, in one run.

Each way has its own model. The ways take turns, round by round, so that a machine that becomes slower does so for all.
"no exchange" leaves communication out: replicas then differ, and no exchange can be faster."""
import statistics
import time

from common import Parser, count, echo, launch


HOOKS = ("ddp", "fp16", "powersgd")


def parse():
    parser = Parser(__doc__, ["python3 examples/pytorch/bench_ddp.py --processes 2 --batch 16",
                              "python3 examples/pytorch/bench_ddp.py --model resnet20 --compress 'taps:ratio=64 bf16'",
                              "torchrun --nnodes 4 --nproc_per_node 1 examples/pytorch/bench_ddp.py --model resnet18"])
    parser.add_argument("--model", default="resnet18", choices=["resnet20", "resnet18"],
                        help="network (default: resnet18)")
    parser.add_argument("--batch", type=count, default=16, metavar="N",
                        help="images per process and step (default: 16)")
    parser.add_argument("--compress", default="auto:ratio=64 bf16", metavar="SPECS",
                        help="atomo's compressors, separated by spaces (default: 'auto:ratio=64 bf16')")
    parser.add_argument("--topology", default="allgather", choices=["allgather", "sharded"],
                        help="of atomo's compressors (default: allgather)")
    parser.add_argument("--hooks", default="ddp fp16 powersgd", metavar="NAMES",
                        help="PyTorch's ways, separated by spaces (default: 'ddp fp16 powersgd'); ddp is without a hook")
    parser.add_argument("--powersgd-rank", type=count, default=2, metavar="R",
                        help="of PyTorch's PowerSGD (default: 2)")
    parser.add_argument("--powersgd-buckets", default="one", choices=["one", "ddp"],
                        help="buckets of PowerSGD (default: one). With several, its callbacks call all_reduce in "
                             "another order on each process, which ends in an error of gloo now and then")
    parser.add_argument("--steps", type=count, default=5, metavar="N", help="steps of a way in a round (default: 5)")
    parser.add_argument("--rounds", type=count, default=3, metavar="N",
                        help="rounds (default: 3), after one to warm up")
    parser.add_argument("--layout", default="channels_last", choices=["channels_last", "contiguous"],
                        help="memory of images and weights (default: channels_last)")
    options = parser.parse_args()
    for name in options.hooks.split():
        if name not in HOOKS:
            parser.error(f"argument --hooks: '{name}', expected names of {', '.join(HOOKS)}")
    return options


def leave_out(state, bucket):
    """A hook that exchanges nothing."""
    import torch
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class Way:
    """A model with one way to exchange gradients. register: a function of (ddp, model) that returns atomo's state, or
    None. buckets: of DistributedDataParallel: "one", or "ddp": its default."""

    def __init__(self, name, register, options, buckets):
        import torch
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        from models import MODELS
        self.name, self.times = name, []
        self.format = torch.channels_last if options.layout == "channels_last" else torch.contiguous_format
        model = MODELS[options.model]().to(memory_format=self.format)
        first = dist._DEFAULT_FIRST_BUCKET_BYTES  # PyTorch has no other way to change the first bucket's size
        dist._DEFAULT_FIRST_BUCKET_BYTES = first if buckets == "ddp" else 2**30
        self.ddp = DistributedDataParallel(model, bucket_cap_mb=25 if buckets == "ddp" else 1024)
        dist._DEFAULT_FIRST_BUCKET_BYTES = first
        self.state = register(self.ddp, model)
        self.optimizer = torch.optim.SGD(self.ddp.parameters(), 0.05, momentum=0.9)
        self.x = torch.randn(options.batch, 3, 32, 32).contiguous(memory_format=self.format)
        self.y = torch.randint(0, 10, (options.batch,))

    def step(self):
        import torch.nn.functional as F
        begin = time.perf_counter()
        self.optimizer.zero_grad()
        F.cross_entropy(self.ddp(self.x), self.y).backward()
        self.optimizer.step()
        return time.perf_counter() - begin


def ways(options):
    """All ways, (name, register, buckets) each."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    import atomo.torch

    def powersgd(ddp, model):
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=options.powersgd_rank,
                                            start_powerSGD_iter=2)
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)

    def ours(spec):
        def register(ddp, model):
            state = atomo.torch.State(spec, model, topology=options.topology)
            ddp.register_comm_hook(state, atomo.torch.hook)
            return state
        return register

    known = {
        "ddp": ("ddp", lambda ddp, model: None, "ddp"),
        "fp16": ("fp16 hook", lambda ddp, model: ddp.register_comm_hook(None, default_hooks.fp16_compress_hook), "ddp"),
        "powersgd": (f"powersgd hook, rank {options.powersgd_rank}", powersgd, options.powersgd_buckets),
    }
    alone = ("no exchange", lambda ddp, model: ddp.register_comm_hook(None, leave_out), "ddp")
    return [alone] + [known[name] for name in options.hooks.split()] + [(f"atomo {spec}", ours(spec), "ddp") for spec in options.compress.split()]


def bench(rank, size, options):
    import torch
    import torch.distributed as dist
    torch.manual_seed(rank)
    chosen = [Way(name, register, options, buckets) for name, register, buckets in ways(options)]
    if rank == 0:
        print(echo(options), f"\n{size} processes, PyTorch {torch.__version__}", flush=True)
    for turn in range(options.rounds + 1):
        for way in chosen:
            dist.barrier()
            times = [way.step() for _ in range(max(options.steps, 0 if turn else 4))]
            way.times += times if turn else []
    if rank == 0:
        medians = {way.name: statistics.median(way.times) for way in chosen}
        alone, dense = medians["no exchange"], medians.get("ddp")
        print(f"{'way':<28} {'median ms':>10} {'least ms':>9} {'x no exchange':>14} {'x ddp':>6} {'kB sent a step':>15}")
        for way in chosen:
            median = medians[way.name]
            times_ddp = f"{median / dense:.2f}" if dense else ""
            sent = f"{way.state.stats().nbytes / 1e3:.0f}" if way.state else ""
            print(f"{way.name:<28} {median * 1e3:>10.1f} {min(way.times) * 1e3:>9.1f} {median / alone:>14.2f} "
                  f"{times_ddp:>6} {sent:>15}", flush=True)


if __name__ == "__main__":
    launch(bench, parse())
