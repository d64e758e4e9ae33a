"""What pyproject.toml cannot say: kernels of one thread are better than none."""

from __future__ import annotations

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError


class BuildKernels(build_ext):
    """Builds without OpenMP what does not compile with it: Apple's compiler refuses the option."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension; a failure leaves it out of the install, see ``optional``."""
        try:
            super().build_extension(ext)
        except CompileError:
            ext.extra_compile_args.remove("-fopenmp")
            super().build_extension(ext)


setup(cmdclass={"build_ext": BuildKernels})
