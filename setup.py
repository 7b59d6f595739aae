"""The compiled part of the package, which is left out where there is no C compiler: see accel_trainer/data/native."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "accel_trainer.data.native._kernel",
            ["accel_trainer/data/native/kernel.c", "accel_trainer/data/native/jpeg.c"],
            depends=["accel_trainer/data/native/kernel.h"],
            # Of one operation on floats and the next the compiler makes no single one, which would round otherwise.
            extra_compile_args=["-O3", "-ffp-contract=off"],
            libraries=["m"],
            optional=True,
        )
    ]
)
