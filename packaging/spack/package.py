# Spack's recipe. In a repository of your own (`spack repo create`), as packages/atomo-lua/package.py.
from spack.package import *


class AtomoLua(CMakePackage):
    """Trains neural networks on CPU clusters with unbiased compressed gradients (ATOMO): a C runtime that embeds LuaJIT,
    over MPI, and libatomo-codec, the compressors alone."""

    license("MIT")

    version("0.2.0", url="file:///path/to/atomo-lua-0.2.0.tar.gz")  # made by: git archive --prefix=atomo-lua-0.2.0/ HEAD

    variant("codec_only", default=False, description="libatomo-codec alone, without MPI and Lua")
    variant("fftw", default=True, description="atoms fourier and dct through FFTW (GPL)")
    variant("onednn", default=True, description="convolutions through oneDNN")
    variant("images", default=True, description="data sets of PNG and JPEG files")
    variant("readline", default=True, description="history at the prompt")

    depends_on("c", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("openblas threads=openmp")
    depends_on("zlib-api")
    depends_on("fftw precision=float ~mpi", when="+fftw")
    with when("~codec_only"):
        depends_on("mpi")
        depends_on("luajit")
        depends_on("onednn", when="+onednn")
        depends_on("libpng", when="+images")
        depends_on("jpeg", when="+images")
        depends_on("readline", when="+readline")

    def cmake_args(self):
        return [
            self.define_from_variant("ATOMO_CODEC_ONLY", "codec_only"),
            self.define_from_variant("ATOMO_FFTW", "fftw"),
            self.define_from_variant("ATOMO_ONEDNN", "onednn"),
            self.define_from_variant("ATOMO_IMAGES", "images"),
            self.define("BUILD_TESTING", False),
        ]
