"""Writes data_files.lua, small files by independent writers (Pillow, SciPy) and the values that these packages read from
them, and seeds of tests/fuzz/corpus/readers. Run in tests/golden; needs python3-pil and python3-scipy."""
import io
import struct
import zlib
import numpy as np
import scipy.io
from PIL import Image, ImageOps

rng = np.random.RandomState(3)
rgb = rng.randint(0, 256, (3, 4, 3)).astype("u1")
grey = rng.randint(0, 256, (3, 4)).astype("u1")
large = np.kron(rgb, np.ones((4, 4, 1), "u1"))
smooth = rng.randint(0, 256, (11, 17, 3)).astype(int) - 127
smooth = np.clip(np.cumsum(np.cumsum(smooth, 0), 1) // 8 + 128, 0, 255).astype("u1")


def image_bytes(pixels, form, **options):
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, form, **options)
    return out.getvalue()


def png_bytes(pixels, passes=((0, 0, 1, 1),)):
    """A PNG of RGB pixels, u1 or u2, in the passes (first row, first column, row step, column step) of Adam7 or in one."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b""
    for y, x, dy, dx in passes:
        part = pixels[y::dy, x::dx].astype(">u%d" % pixels.itemsize)
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, 2, 0, 0, len(passes) > 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


adam7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))

images = {
    "interlaced.png": png_bytes(smooth, adam7),
    "deep.png": png_bytes(rgb.astype("u2") * 255 + grey[:, :, None]),
    "rgb.png": image_bytes(rgb, "PNG"),
    "grey.png": image_bytes(grey, "PNG"),
    "rgba.png": image_bytes(np.dstack([rgb, grey]), "PNG"),
    "palette.png": image_bytes(Image.fromarray(rgb).quantize(4), "PNG", bits=2),
    "bits.png": image_bytes(Image.fromarray(grey).convert("1"), "PNG"),
    "rgb.ppm": image_bytes(rgb, "PPM"),
    "grey.pgm": image_bytes(grey, "PPM"),
    "bits.pbm": image_bytes(Image.fromarray(grey).convert("1"), "PPM"),
    "rgb.jpg": image_bytes(large, "JPEG", quality=90),
    "grey.jpg": image_bytes(grey, "JPEG", quality=95),
    "progressive.jpg": image_bytes(large, "JPEG", quality=50, progressive=True),
    "smooth.ppm": image_bytes(smooth, "PPM"),
}


def mat_bytes(variables, **options):
    out = io.BytesIO()
    scipy.io.savemat(out, variables, **options)
    return b"MATLAB 5.0 MAT-file".ljust(116) + out.getvalue()[116:]  # without the date


x = rng.randint(0, 256, (2, 3, 3, 4)).astype("u1")
y = np.array([[10], [1], [2], [9]])
mats = {
    "svhn": mat_bytes({"y": y.astype("f8"), "X": x}, do_compression=True),
    "plain": mat_bytes({"X": x, "y": y.astype("u1")}),
    "odd": mat_bytes({"s": {"a": 1}, "t": "text", "z": np.array([1 + 2j]), "v": np.array([[0.5, -2, 1e300]])}),
}


def npz_bytes(**arrays):
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


npzs = {
    "plain": npz_bytes(X=x.transpose(3, 0, 1, 2), labels=np.array([2, 0, 1, 2])),
    "keras": npz_bytes(x_train=x[0], y_train=np.arange(3, dtype="u1"), x_test=x[1, :2], y_test=np.array([1, 1])),
    "numbers": npz_bytes(x=np.arange(6.0).reshape(3, 2), y=np.array([0.5, 1, 2])),
    "other": npz_bytes(a=np.arange(3), b=np.arange(3)),
}


def value(array):
    return "{shape = {%s}, bytes = \"%s\"}" % (", ".join(map(str, array.shape)), array.tobytes().hex())


def line(name, text):
    rows, start = [], "  [\"%s\"] = " % name
    while len(start) + len(text) > 116:
        cut = 116 - len(start)
        rows.append(start + text[:cut] + "\" ..")
        start, text = "    \"", text[cut:]
    return "\n".join(rows + [start + text + ","])


def table(name, entries):
    return "M.%s = {\n%s\n}\n" % (name, "\n".join(line(k, v) for k, v in entries))


def decoded(data):
    image = Image.open(io.BytesIO(data))
    pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    return pixels.reshape(pixels.shape[0], pixels.shape[1], -1)


source = Image.fromarray(smooth)
fitted = [("%d x %d" % (h, w), value(np.asarray(ImageOps.fit(source, (w, h), method=Image.BILINEAR))))
          for h, w in ((4, 4), (5, 8), (20, 20), (11, 7))]
with open("data_files.lua", "w") as out:
    out.write("-- Written by make_data_files.py: files as hexadecimal text, and what Pillow and SciPy read from them.\n")
    out.write("local M = {}\n\n")
    out.write(table("images", [(k, "\"%s\"" % v.hex()) for k, v in images.items()]))
    out.write(table("pixels", [(k, value(decoded(v))) for k, v in images.items()]))
    out.write("-- smooth.ppm by ImageOps.fit with a bilinear filter\n")
    out.write(table("fitted", fitted))
    out.write(table("mats", [(k, "\"%s\"" % v.hex()) for k, v in mats.items()]))
    out.write(table("npzs", [(k, "\"%s\"" % v.hex()) for k, v in npzs.items()]))
    out.write("-- X of svhn and plain, [n,h,w,c]\n")
    out.write("M.mat_x = %s\n" % value(x.transpose(3, 0, 1, 2)))
    out.write("\nreturn M\n")

seeds = {"image_" + k.replace(".", "_"): b"\x08" + v for k, v in images.items() if k != "smooth.ppm"}
seeds.update({"mat_" + k: b"\x0c" + v for k, v in mats.items()})
seeds["csv"] = b"\x10a,b,label\r\n1,2.5,cat\n-3e2,\" 4\",\"d\"\"og\"\n\n"
for name, data in seeds.items():
    with open("../fuzz/corpus/readers/" + name, "wb") as out:
        out.write(data)
