"""Writes the .npy files that tests/spec/tensor/io_spec.lua reads: numpy is the reference. Run in tests/golden."""
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

# npy_types.bin: name, a newline, the length in 10 digits, the file; of every dtype, byte order and layout that numpy
# writes and whose values fit.
import io

small = {"i1": [-128, 127, 0, -1, 5, 6], "i2": [-32768, 32767, 0, -1, 5, 6], "i4": [-(2**31), 2**31 - 1, 0, -1, 5, 6],
         "u1": [0, 255, 1, 2, 5, 6], "u2": [0, 65535, 1, 2, 5, 6], "u4": [0, 2**31 - 1, 1, 2, 5, 6],
         "i8": [-(2**31), 2**31 - 1, 0, -1, 5, 6], "u8": [0, 2**31 - 1, 1, 2, 5, 6], "b1": [0, 1, 1, 0, 1, 0],
         "f2": [65504, -0.5, 2.0**-24, 0, np.inf, 6], "f4": [1.5, -0.5, 2.0**127, 0, -np.inf, 6],
         "f8": [1.5, -0.5, 2.0**127, 0, -np.inf, 6]}
with open("npy_types.bin", "wb") as out:
    for dtype, values in small.items():
        for order in "<>" if dtype[1] != "1" else "|":
            for layout in "CF":
                for shape in ((2, 3), (6,)) if layout == "C" else ((2, 3),):
                    f = io.BytesIO()
                    np.save(f, np.array(values, dtype=order + dtype).reshape(shape, order="C").copy(order=layout))
                    body = f.getvalue()
                    out.write(f"{order}{dtype} {layout} {len(shape)}\n{len(body):010d}".encode() + body)
