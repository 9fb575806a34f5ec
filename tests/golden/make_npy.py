"""Writes the .npy files that tests/spec/io_spec.lua reads: numpy is the reference. Run in tests/golden."""
import numpy as np

a = (np.arange(24).reshape(2, 3, 4) - 7.25) / 3
np.save("npy_f4.npy", a.astype("<f4"))
np.save("npy_f4_fortran.npy", np.asfortranarray(a.astype("<f4")))
np.save("npy_f8.npy", a)
np.save("npy_i4.npy", np.array([[1, -2, 3], [2**31 - 1, -(2**31), 0]], dtype="<i4"))
np.save("npy_i8_fortran.npy", np.asfortranarray(np.array([[1, -2], [2**31 - 1, -(2**31)], [5, 6]], dtype="<i8")))
np.save("npy_i8_large.npy", np.array([1, 2**31], dtype="<i8"))
np.save("npy_u1.npy", np.arange(256, dtype="u1"))
np.save("npy_scalar.npy", np.float32(2.5))
np.save("npy_empty.npy", np.zeros((0, 3), dtype="<f4"))
np.save("npy_object.npy", np.array([1, "a"], dtype=object), allow_pickle=True)
np.save("npy_c8.npy", np.zeros(2, dtype="<c8"))
for version in (2, 3):
    with open(f"npy_v{version}.npy", "wb") as f:
        np.lib.format.write_array(f, a.astype("<f4"), version=(version, 0))
