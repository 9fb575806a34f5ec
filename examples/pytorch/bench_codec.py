"""Times encoding and decoding of a step through Python beside scripts/bench_codec.lua, on the same gradients, in turns.

Columns: milliseconds to encode (Lua, Python), their ratio, milliseconds to decode, their ratio; medians of the rounds."""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

STEPS = 11  # timed in each round, of either side, after one that is not
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings" / "python"))
os.environ.setdefault("ATOMO_LIBRARY", str(ROOT / "build"))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--gradients", default="", metavar="DIR",
                        help="folder of .npy files, one per tensor; those of one dimension are left out; if absent: "
                             "generated")
    parser.add_argument("--elements", type=int, default=3000000, metavar="N",
                        help="of generated gradients (default: 3000000)")
    parser.add_argument("--compress", default="bf16 taps:ratio=64 svd:ratio=64 auto:ratio=64", metavar="SPECS",
                        help="compressors, separated by spaces (default: bf16, taps, svd and auto at ratio 64)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds, in which both take turns (default: 5)")
    return parser.parse_args()


def generate(folder, elements):
    """Six tensors of about equal size."""
    import numpy as np
    random = np.random.default_rng(1)
    for k in range(6):
        rows = max(1, elements // 6 // (9 * 32))
        np.save(os.path.join(folder, f"conv{k}.weight.npy"), random.standard_normal((rows, 3, 3, 32)).astype("f") * 0.01)


def of_lua(folder, spec):
    """(encode ms, decode ms) by the Lua program."""
    out = subprocess.run([str(ROOT / "build" / "atomo-lua"), "scripts/bench_codec.lua", "--gradients", folder, "--compress",
                          spec, "--ratio", "64", "--coefficients", "0", "--repeat", str(STEPS)], cwd=ROOT, check=True,
                         capture_output=True, text=True).stdout
    return tuple(float(re.search(rf"{what} +([\d.]+) ms", out)[1]) for what in ("encode", "decode"))


def of_python(compressor, grads, accs, room):
    """(encode ms, decode ms) of a step by the Python package."""
    encode, decode = [], []
    for step in range(1 + STEPS):
        for acc in accs:
            acc.fill(0)
        begin = time.perf_counter()
        messages = compressor.encode_step(grads, step=step, out=room)
        middle = time.perf_counter()
        compressor.decode_add_step(memoryview(room)[:sum(map(len, messages))], 1, accs)
        end = time.perf_counter()
        encode.append(1e3 * (middle - begin))
        decode.append(1e3 * (end - middle))
    return statistics.median(encode[1:]), statistics.median(decode[1:])


def bench(folder, options):
    import numpy as np

    import atomo
    atomo.library().set_num_threads(1)
    grads = [g for g in map(np.load, sorted(pathlib.Path(folder).glob("*.npy"))) if g.ndim > 1]  # as in Lua
    accs = [np.zeros_like(g) for g in grads]
    print(f"{len(grads)} tensors, {sum(g.nbytes for g in grads) / 1e6:.1f} MB, one thread")
    print(f"{'compressor':<24} {'lua':>9} {'python':>9} {'ratio':>6} {'lua':>9} {'python':>9} {'ratio':>6}")
    for spec in options.compress.split():
        compressor = atomo.Compressor(spec, seed=1)
        for k, g in enumerate(grads, 1):
            compressor.plan(k, g.shape)
        room, rounds = bytearray(compressor.wire_max()), []
        for _ in range(options.rounds):
            rounds.append((*of_lua(folder, spec), *of_python(compressor, grads, accs, room)))
        e, d, pe, pd = (statistics.median(column) for column in zip(*rounds))
        print(f"{spec:<24} {e:>9.2f} {pe:>9.2f} {pe / e:>6.2f} {d:>9.2f} {pd:>9.2f} {pd / d:>6.2f}", flush=True)


if __name__ == "__main__":
    OPTIONS = parse()
    if OPTIONS.gradients:
        bench(OPTIONS.gradients, OPTIONS)
    else:
        with tempfile.TemporaryDirectory() as made:
            generate(made, OPTIONS.elements)
            bench(made, OPTIONS)
