"""The compiled part of the package, which is left out where there is no C compiler: see accel_trainer/data/native."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "accel_trainer.data.native._kernel",
            [
                f"accel_trainer/data/native/{name}.c"
                for name in ("kernel", "read", "jpeg", "operations", "occlude", "rows", "draws")
            ],
            depends=["accel_trainer/data/native/kernel.h"],
            # Of one operation on floats and the next the compiler makes no single one, which would round otherwise.
            extra_compile_args=["-O3", "-ffp-contract=off"],
            libraries=["m"],
            optional=True,
        )
    ]
)
