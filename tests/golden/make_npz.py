"""Writes the .npz files that tests/spec/tensor/npz_spec.lua reads: numpy is the reference. Run in tests/golden."""
import io

import numpy as np

arrays = {"weight": np.arange(6, dtype="<f4").reshape(2, 3) / 4, "turned": np.asfortranarray([[1, 2], [3, 4], [5, 6]]),
          "half": np.array([0.5, -2], dtype="<f2"), "big": np.array([1, -2], dtype=">i4"), "scalar": np.float64(2.5),
          "yes": np.array([True, False]), "empty": np.zeros((0, 3), dtype="<f4"), "u": np.arange(3, dtype="u1")}
np.savez("npz_stored.npz", **arrays)
np.savez_compressed("npz_deflated.npz", zeros=np.zeros((40, 50), dtype="<f8"), **arrays)
np.savez("npz_unfit.npz", fine=np.float32(1), complex=np.zeros(2, dtype="<c8"), text=np.array(["a", "bc"]),
         large=np.array([1, 2**31]), record=np.zeros(2, dtype=[("a", "<f4")]), object=np.array([{}], dtype=object))


class Pipe(io.RawIOBase):
    """An output without seek: numpy writes the sizes after the data, as to a pipe."""

    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


with open("npz_piped.npz", "wb") as f:
    np.savez(Pipe(f), arrays["weight"], arrays["u"])
