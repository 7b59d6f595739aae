"""What effects on images cost beside the usual way to make them: `python benchmarks/augmentations.py`.

One thread, one image of 224 x 224 at a time, both in turn A B A B after a warm-up; medians of the milliseconds and of
the ratio pair by pair.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from accel_trainer.config.augmentations import Occlusion
from accel_trainer.data.augment.blur import CONTRASTIVE_SIGMAS, ContrastiveBlur
from accel_trainer.data.augment.color import ColorJitter
from accel_trainer.data.augment.effect import Effect
from accel_trainer.data.augment.noise import AddNoise, half_spectrum
from accel_trainer.data.augment.occlusion import Occlude
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.rng.draws import Draws

PAIRS, SIZE, SSNR = 60, 224, 0.5
DRAWS = Draws(seed=0, epoch=1, step=0, indices=np.arange(PAIRS))


def ours(effect: Effect) -> Callable[[int], Any]:
    """The n-th image through an effect, from its files to its pixels; drawing is for all images at once."""
    drawn, images = effect.draw(DRAWS), FLOATS.clone()
    return lambda number: effect.apply(images[number : number + 1], effect.fetch(drawn[number : number + 1]))


def fourier_by_numpy(number: int) -> torch.Tensor:
    """Channel by channel: the image's spectrum, its phases shuffled, the mean amplitudes, and back."""
    noised = np.empty((3, SIZE, SIZE), dtype=np.float32)
    for channel in range(3):
        pixels = FLOATS[number, channel].numpy()
        phases = np.angle(np.fft.fft2(pixels))
        GENERATOR.shuffle(phases.reshape(-1))
        field = np.fft.ifft2(AMPLITUDES[channel] * np.exp(1j * phases)).real
        field = (field - field.min()) / (field.max() - field.min())
        noised[channel] = np.clip((pixels - 0.5) * SSNR + 0.5 + (field - 0.5) * (1 - SSNR), 0, 1)
    return torch.from_numpy(noised)


def paste_by_pillow(folder: Path) -> Callable[[int], Image.Image]:
    """A mask's file, resized, flipped and pasted: a colour through an L mask, an RGBA mask itself."""
    files = sorted(folder.glob("*.png"))

    def paste(number: int, image: Image.Image | None = None) -> Image.Image:
        mask = Image.open(files[number % len(files)]).resize((SIZE, SIZE)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image or PICTURES[number].copy()
        image.paste(mask if mask.mode == "RGBA" else Image.new("RGB", (SIZE, SIZE), (number, 100, 200)), (0, 0), mask)
        return image

    return paste


def compare_occlusion(form: str) -> None:
    """Beside Pillow: with tensors in and out, as ours has them, and pasting alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_occluders(folder, [form], [50], number=20, report=lambda line: None)
        masks = torch.load(folder / form / "50" / "occluders.pt", weights_only=True)
        for number, mask in enumerate(masks):
            v2.functional.to_pil_image(mask).save(folder / f"{number}.png")
        occlude = Occlude(Occlusion(occluder_dir=name, form=[form], visibility=[50]), SIZE)
        what = f"occluder, {'L' if masks.shape[1] == 1 else 'RGBA'}"
        paste = paste_by_pillow(folder)

        def tensors(number: int) -> torch.Tensor:
            pasted = paste(number, v2.functional.to_pil_image(FLOATS[number]))
            return v2.functional.to_dtype(v2.functional.pil_to_tensor(pasted), scale=True)

        compare(what, 5, ours(occlude), tensors, "Pillow, tensors in and out")
        compare(what, 1, ours(occlude), paste, "Pillow, the pasting alone")


def compare(name: str, at_least: float, mine: Callable[[int], Any], other: Callable[[int], Any], what: str) -> None:
    def milliseconds(run: Callable[[int], Any], number: int) -> float:
        began = time.perf_counter()
        run(number)
        return 1000 * (time.perf_counter() - began)

    for number in range(5):
        mine(number), other(number)
    pairs = [(milliseconds(mine, number), milliseconds(other, number)) for number in range(PAIRS)]
    ratio = statistics.median(b / a for a, b in pairs)
    medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
    print(
        f"{name:<18}{medians[0]:7.2f} ms   {what:<30}{medians[1]:7.2f} ms   {ratio:5.1f} times (at least {at_least:g})"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    GENERATOR = np.random.default_rng(0)
    PIXELS = torch.from_numpy(GENERATOR.integers(0, 256, (PAIRS, 3, SIZE, SIZE), dtype=np.uint8))
    FLOATS = PIXELS.to(torch.float32) / 255
    PICTURES = [v2.functional.to_pil_image(image) for image in PIXELS]
    SPECTRUM = torch.fft.fft2(FLOATS).abs().mean(0)
    AMPLITUDES = SPECTRUM.numpy()
    noise = AddNoise(["fourier"], [SSNR], [1.0], half_spectrum(SPECTRUM))
    compare("Fourier noise", 5, ours(noise), fourier_by_numpy, "numpy.fft.fft2, by channel")
    blur = v2.GaussianBlur(23, CONTRASTIVE_SIGMAS)
    compare("blur", 3, ours(ContrastiveBlur()), lambda number: blur(FLOATS[number]), "torchvision GaussianBlur(23)")
    for form in ("mudSplash", "natural"):
        compare_occlusion(form)
    jitter = v2.ColorJitter(0.8, 0.8, 0.8, 0.2)
    compare(
        "colour jitter", 1, ours(ColorJitter(probability=1)), lambda n: jitter(FLOATS[n]), "torchvision ColorJitter"
    )
