"""What the examples share: options, and the start of processes with a gloo process group."""
import argparse
import difflib
import os
import pathlib
import socket
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bindings" / "python"))


class Parser(argparse.ArgumentParser):
    """Shows defaults and examples; an unknown option is refused with the nearest one."""

    def __init__(self, about, examples):
        super().__init__(description=about, epilog="examples:\n  " + "\n  ".join(examples), allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--processes", type=count, default=2, metavar="N",
                          help="processes to start on this machine (default: 2); ignored under torchrun and mpirun")
        self.add_argument("--threads", type=count, default=1, metavar="N", help="threads of each process (default: 1)")

    def error(self, message):
        words = [word for word in message.split() if word.startswith("--")] if "unrecognized" in message else []
        known = [name for action in self._actions for name in action.option_strings]
        near = difflib.get_close_matches(words[0], known, 1) if words else []
        super().error(message + (f", did you mean {near[0]}?" if near else ""))


def count(text):
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected 1 or more")
    return number


def echo(options):
    """The settings on one line."""
    return "settings: " + " ".join(f"--{name.replace('_', '-')} {value}" for name, value in vars(options).items()
                                   if value not in (None, ""))


def place():
    """(rank, size) if torchrun or mpirun has started this process, else None."""
    for rank, size in (("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
                       ("PMI_RANK", "PMI_SIZE")):
        if rank in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return None


def joined(rank, work, options, size):
    """One process: joins the group, and does the work."""
    import torch
    import torch.distributed as dist
    torch.set_num_threads(options.threads)
    dist.init_process_group("gloo", rank=rank, world_size=size)
    try:
        work(rank, size, options)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def launch(work, options):
    """Calls work(rank, size, options) in all processes. Under mpirun on several hosts, MASTER_ADDR must name the first
    host."""
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    here = place()
    if here:
        os.environ.setdefault("MASTER_PORT", "29511")
        return joined(here[0], work, options, here[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    import torch.multiprocessing
    torch.multiprocessing.spawn(joined, (work, options, options.processes), nprocs=options.processes)
