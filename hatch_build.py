"""Build hook: compile the native view engine with the system's C++ compiler.

One library without Python in it, opened with ctypes, so that one wheel serves every Python. Where
there is no compiler the package installs all the same, and views are made by the torch pipeline.
Set SELFTAUGHT_REQUIRE_NATIVE=1 to have the build fail instead (wheels are built so).
"""

import os
import platform
import sys
import sysconfig
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
FOLDER = Path("src", "selftaught", "augment", "image", "native")
NAME = {"win32": "views.dll", "darwin": "libviews.dylib"}.get(sys.platform, "libviews.so")


class NativeHook(BuildHookInterface):
    """Compiles into the source tree, where an editable installation finds it too."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        try:
            build(HERE / FOLDER)
        except Exception as error:
            if os.environ.get("SELFTAUGHT_REQUIRE_NATIVE") == "1":
                raise
            self.app.display_warning(
                f"selftaught: the native view engine was not built, views will be slower: {error}"
            )
            return
        build_data["artifacts"].append(f"/{(FOLDER / NAME).as_posix()}")
        build_data["pure_python"] = False
        where = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{where}"


def build(folder: Path) -> None:
    """Compile the sources in `folder` into the library beside them."""
    import_module("setuptools")  # brings distutils, which knows each system's compiler
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler

    compiler = new_compiler()
    microsoft = compiler.compiler_type == "msvc"
    if not microsoft:
        customize_compiler(compiler)
    common, pixels, variants = flags(microsoft)
    enabled = [f"WITH_{name.upper()}" for name in variants if name != "baseline"]
    with tempfile.TemporaryDirectory() as scratch:

        def compile_one(source: str, name: str, options: list[str], macros: list[tuple]) -> str:
            # Two objects from one source: each has a folder of its own.
            return compiler.compile(
                [str(folder / source)],
                output_dir=str(Path(scratch, name)),
                macros=macros,
                extra_postargs=common + options,
            )[0]

        macros = [(name, "1") for name in enabled]
        objects = [
            compile_one(source, "once", [], macros) for source in ("library.cpp", "jpeg.cpp")
        ]
        for name, options in variants.items():
            own = [("VARIANT", name), *macros]
            for source in ("render.cpp", "planes.cpp"):
                objects.append(compile_one(source, name, pixels + options, own))
        ready = Path(scratch, NAME)
        extra = [] if microsoft else ["-pthread"]
        compiler.link_shared_object(objects, str(ready), extra_postargs=extra, target_lang="c++")
        # Replaced in one step: a process that has the old one open keeps it.
        fresh = (folder / NAME).with_suffix(".new")
        fresh.write_bytes(ready.read_bytes())
        fresh.replace(folder / NAME)


def flags(microsoft: bool) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """Options for all sources, for the pixel work, and for each kind of processor.

    Pixels are finite numbers, and compilers must know it: otherwise minimum and maximum are not
    vectorized. Products and sums are only fused where the source says so, for equal results on
    every processor.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    whole = os.environ.get("ARCHFLAGS", "").count("-arch") > 1  # macOS, for two processors at once
    variants: dict[str, list[str]] = {"baseline": []}
    if microsoft:
        if x86:
            variants |= {"avx2": ["/arch:AVX2"], "avx512": ["/arch:AVX512"]}
        return ["/std:c++17", "/O2", "/EHsc", "/nologo"], ["/fp:fast"], variants
    if x86 and not whole:
        variants["avx2"] = ["-mavx2", "-mfma"]
        wide = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
        variants["avx512"] = [*wide, "-mprefer-vector-width=512"]
    pixels = ["-ffinite-math-only", "-fno-signed-zeros", "-fno-math-errno", "-fno-trapping-math"]
    # Python's own flags come first; of these, wrapping integers cost a third of the speed.
    common = ["-std=c++17", "-O3", "-g0", "-fPIC", "-fno-wrapv", "-fvisibility=hidden"]
    common += ["-ffp-contract=off", "-Wno-maybe-uninitialized"]
    return common, pixels, variants


if __name__ == "__main__":
    build(HERE / FOLDER)
