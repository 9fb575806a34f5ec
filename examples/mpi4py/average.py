"""Averages a compressed gradient over MPI ranks with mpi4py.  mpirun -n 2 /usr/bin/python3
examples/mpi4py/average.py"""
import pathlib
import sys

import numpy as np
from mpi4py import MPI

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bindings" / "python"))
import atomo

world = MPI.COMM_WORLD
compressor = atomo.Compressor("taps:ratio=16", seed=1)
compressor.set_ranks(world.size)  # their draws cancel in the average
truth = np.random.default_rng(0).standard_normal((64, 3, 3, 64)).astype(np.float32)
worst = 0.0
for step in range(3):
    noise = np.random.default_rng((step, world.rank)).standard_normal(truth.shape).astype(np.float32)
    message = compressor.encode(truth + noise, step=step, rank=world.rank)
    average = np.zeros_like(truth)
    for rank, other in enumerate(world.allgather(message)):
        compressor.decode_add(other, 1 / world.size, average, step=step, rank=rank)
    mean = world.allreduce(truth + noise) / world.size
    worst = max(worst, float(np.square(average - mean).sum() / np.square(mean).sum()))
same = len(set(world.allgather(average.tobytes()))) == 1
if world.rank == 0:
    print(f"{world.size} ranks: {len(message)} bytes in place of {truth.nbytes}; relative squared error {worst:.2f}; "
          f"{'bit-identical on all ranks' if same else 'RANKS DIFFER'}")
