"""What degradations cost beside the published code: `python benchmarks/degradations.py`.

One thread, one image of 224 x 224 at a time, all levels of a degradation after a warm-up; medians of the milliseconds
for an image at a level. Beside ImageNet-C's corruptions stands the package imagecorruptions (Bethge lab, after
Hendrycks and Dietterich's code), where it is installed: `pip install imagecorruptions` brings OpenCV, Numba and
scikit-image.
"""

import importlib.util
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.degradations.degradation import Degradation
from accel_trainer.degradations.registry import Resources, find_degradations

SIZE, REPEATS, REFERENCE_REPEATS = 224, 9, 3
IMAGE = np.ascontiguousarray(load_sample_image("china.jpg")[100 : 100 + SIZE, 200 : 200 + SIZE])
OCCLUSION = ["occlusion/mud_splash", "occlusion/natural"]
PREFIX = "imagenet-c/"


def published_code() -> types.ModuleType | None:
    """imagecorruptions, with the names that NumPy, SciPy, scikit-image and setuptools have given up since."""
    found = importlib.util.find_spec("imagecorruptions")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    if not hasattr(np, "float_"):
        np.float_ = np.float64  # type: ignore[attr-defined]
    gone: dict[str, dict[str, Any]] = {
        "scipy.ndimage.interpolation": {"map_coordinates": scipy.ndimage.map_coordinates},
        "pkg_resources": {"resource_filename": lambda package, name: str(folder / name)},
    }
    for name, contents in gone.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        sys.modules.setdefault(name, module)
    from imagecorruptions import corruptions

    gaussian = corruptions.gaussian

    def with_channels(*arguments: Any, multichannel: bool = False, **options: Any) -> npt.NDArray[np.floating]:
        return np.asarray(gaussian(*arguments, channel_axis=-1 if multichannel else None, **options))

    corruptions.gaussian = with_channels
    return corruptions  # type: ignore[no-any-return]


def milliseconds(calls: Sequence[Callable[[], Any]], repeats: int) -> float:
    """The mean over calls, of the median of each."""
    return statistics.mean(statistics.median(_timed(call) for _ in range(repeats)) for call in calls)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def ours(degradation: Degradation) -> float:
    conditions = [one for one in degradation.conditions() if not one.is_neutral]
    for number in range(10):  # frost: of each of its pictures
        conditions[0].degrade(IMAGE, str(number))
    return milliseconds([lambda one=one: one.degrade(IMAGE, "1") for one in conditions], REPEATS)  # type: ignore[misc]


def theirs(code: types.ModuleType, name: str) -> float:
    corrupt, image = getattr(code, name), Image.fromarray(IMAGE)
    corrupt(image, 1)
    return milliseconds(
        [lambda level=level: np.uint8(corrupt(image, level)) for level in range(1, 6)],  # type: ignore[misc]
        REFERENCE_REPEATS,
    )


def main() -> None:
    torch.set_num_threads(1)
    code = published_code()
    if code is None:
        print("imagecorruptions is not installed: left out\n")
    print("| degradation | ms per image | imagecorruptions | times as fast |\n| --- | --- | --- | --- |")
    means: dict[str, list[float]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as folder:
        make_occluders(Path(folder), ["mud_splash", "natural"], [20, 60], number=20, report=lambda line: None)
        names = ["noise", "blur", "geirhos", *OCCLUSION, "imagenet-c"]
        for degradation in find_degradations(names, Resources(Path(folder))):
            own = ours(degradation)
            row = [f"`{degradation.name}`", f"{own:.1f}", "", ""]
            if degradation.name.startswith(PREFIX):
                means["ours"].append(own)
                if code is not None:
                    reference = theirs(code, degradation.name.removeprefix(PREFIX))
                    means["theirs"].append(reference)
                    row[2:] = [f"{reference:.1f}", f"{reference / own:.1f}"]
            print("| " + " | ".join(row) + " |", flush=True)
    own, reference = (statistics.mean(values or [float("nan")]) for values in means.values())
    print(f"| mean of `imagenet-c` | {own:.1f} | {reference:.1f} | {reference / own:.1f} |")


if __name__ == "__main__":
    main()
