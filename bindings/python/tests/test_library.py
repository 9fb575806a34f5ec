"""Finding the C library, its ABI, and the types of its functions against the headers."""
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from tests.support import BUILD, ROOT, Case, need

need("numpy")
import atomo
from atomo import functions, loader

C_TYPES = {"int": ctypes.c_int, "double": ctypes.c_double, "const char *": ctypes.c_char_p, "int32_t": ctypes.c_int32,
           "void": None}


def headers():
    return (ROOT / "runtime" / "atomo_codec.h").read_text()


def python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "bindings" / "python"), **environment})


class Search(Case):
    def test_variable_names_a_folder_or_a_file(self):
        for value in (str(BUILD), str(BUILD / os.path.basename(atomo.library().path))):
            result = python("import atomo; print(atomo.library().path)", ATOMO_LIBRARY=value)
            self.assertEqual(os.path.dirname(result.stdout.strip()), str(BUILD), result.stderr)

    def test_build_folder_is_found_without_it(self):
        result = python("import os; del os.environ['ATOMO_LIBRARY']; import atomo; print(atomo.library().version)",
                        ATOMO_LIBRARY="x")
        self.assertEqual(result.stdout.strip(), atomo.library().version, result.stderr)

    def test_not_found(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.refuses(atomo.LibraryError, f"ATOMO_LIBRARY={folder}", *loader.NAMES, "no such file", "build it"):
                loader.open_first(folder)
            broken = os.path.join(folder, "libatomo.so.0")
            with open(broken, "w") as f:
                f.write("text")
            with self.refuses(atomo.LibraryError, broken, "file too short"):
                loader.open_first(broken)

    def test_import_needs_no_library(self):
        result = python("import atomo; print(atomo.__version__); atomo.compressors()", ATOMO_LIBRARY="/nowhere")
        self.assertEqual(result.stdout.strip(), atomo.__version__)
        self.assertIn("LibraryError: the C library of atomo was not found (ATOMO_LIBRARY=/nowhere)", result.stderr)

    def test_another_library(self):
        with self.refuses(atomo.LibraryError, "is not the C library of atomo"):
            loader.check_abi(ctypes.CDLL("libm.so.6"))

    @unittest.skipUnless(shutil.which("cc"), "there is no C compiler")
    def test_another_abi(self):
        names = "".join(f"void {name}(void) {{}}\n" for name in functions.SIGNATURES
                        if name not in ("atomo_codec_abi", "atomo_version"))
        code = names + 'int atomo_codec_abi(void) { return 3; }\nconst char *atomo_version(void) { return "0.0.1"; }\n'
        with tempfile.TemporaryDirectory() as folder:
            source, built = os.path.join(folder, "old.c"), os.path.join(folder, "libatomo.so.0")
            with open(source, "w") as f:
                f.write(code)
            subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source], check=True)
            result = python("import atomo; atomo.compressors()", ATOMO_LIBRARY=folder)
        self.assertIn(f"(version 0.0.1) has ABI 3, this package expects {functions.ABI}", result.stderr)


class Signatures(unittest.TestCase):
    """The types in functions.py are those of the headers."""

    def setUp(self):
        self.text = re.sub(r"/\*.*?\*/", " ", headers(), flags=re.S)

    def described(self, kind):
        if kind is ctypes.c_void_p or (isinstance(kind, type) and issubclass(kind, ctypes._Pointer)):
            target = getattr(kind, "_type_", None)
            deep = isinstance(target, type) and (issubclass(target, ctypes._Pointer) or target is ctypes.c_void_p)
            return "pointer to pointer" if deep else "pointer"
        return kind

    def arguments(self, text):
        if text.strip() in ("void", ""):
            return []
        kinds = []
        for one in text.split(","):
            one = one.strip()
            if "char *" in one:
                kinds.append(ctypes.c_char_p)
            elif one.count("*") + one.count("[") >= 2:
                kinds.append("pointer to pointer")
            elif "*" in one or "[" in one:
                kinds.append("pointer")
            else:
                kinds.append(C_TYPES[one.rsplit(" ", 1)[0].replace("const ", "")])
        return kinds

    def test_functions(self):
        for name, (result, arguments) in functions.SIGNATURES.items():
            match = re.search(r"ATOMO_API\s+([\w ]+?[ \*]*)\b" + name + r"\(([^;]*)\);", self.text)
            self.assertIsNotNone(match, f"{name} is not in the headers")
            wanted = ctypes.c_int if result == functions.Status else result
            self.assertEqual(C_TYPES[" ".join(match[1].split())], wanted, name)
            self.assertEqual([self.described(a) for a in arguments], self.arguments(" ".join(match[2].split())), name)

    def test_structures(self):
        for name, structure in (("atomo_codec_stats", functions.CodecStats), ("atomo_tensor", functions.Tensor),
                                ("atomo_codec_info", functions.CodecInfo), ("atomo_option_info", functions.OptionInfo)):
            body = re.search(r"typedef struct " + name + r" \{([^}]*)\}", self.text)[1]
            fields = re.findall(r"(\w+)(?:\[8\])?\s*[,;]", body)
            self.assertEqual([field[0] for field in structure._fields_], fields, name)

    def test_constants(self):
        self.assertEqual(int(re.search(r"ATOMO_CODEC_ABI = (\d+)", self.text)[1]), functions.ABI)
        self.assertEqual(int(re.search(r"ATOMO_MAX_DIM = (\d+)", self.text)[1]), functions.MAX_DIM)
        self.assertIn(f"ATOMO_U8 = {functions.U8}", self.text)

    def test_statuses(self):
        from atomo.errors import BY_STATUS
        names = set(re.findall(r"X\((E\w+), -\d+", self.text))
        self.assertLessEqual(set(BY_STATUS), names)


if __name__ == "__main__":
    unittest.main()
