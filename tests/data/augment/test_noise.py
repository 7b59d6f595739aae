"""Noise has the strength that is asked for, and Fourier noise the spectrum that it is given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from accel_trainer.config import Job
from accel_trainer.core import keyed_random
from accel_trainer.data.augment.noise import (
    AddNoise,
    NoiseParameters,
    fourier_field,
    half_spectrum,
    modulus_field,
    pink_spectrum,
)
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.pipeline import training_views
from accel_trainer.data.rng.draws import Draws
from accel_trainer.data.rng.random_fields import uniform_field
from accel_trainer.data.sources.digits import Digits

MANY = 20_000
UNLIKELY = 1e-4
SIZES = [1, 2, 3, 8, 33]
GAUSSIAN, FOURIER = 0, 1


def pictures(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def grey(count: int, size: int) -> torch.Tensor:
    return torch.full((count, 3, size, size), 0.5)


def draws(count: int, **others: Any) -> Draws:
    return Draws(**{"seed": 3, "epoch": 1, "step": 0, "indices": np.arange(count), **others})


def keys(count: int) -> npt.NDArray[np.uint64]:
    return keyed_random.random_bits(keyed_random.key("noise"), range(count), 1)[:, 0]


def amplitudes(size: int) -> torch.Tensor:
    """A spectrum (3, size, size) with the symmetry of a real image: that of one with every frequency in it."""
    spectrum = torch.fft.fft2(pictures(1, size, seed=5)[0]).abs() + 0.05
    return spectrum * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)


def noisy(images: torch.Tensor, kind: int, ssnr: float | list[float]) -> torch.Tensor:
    """What `apply` makes of a copy of the images; each has a key of its own."""
    count, size = len(images), images.shape[-1]
    noise = AddNoise(["gaussian", "fourier"], [0.0], [1.0], half_spectrum(amplitudes(size)))
    ssnrs = np.broadcast_to(np.array(ssnr, dtype=np.float64), (count,))
    return noise.apply(images.clone(), NoiseParameters(ssnrs, np.full(count, kind), keys(count)))


# -- Gaussian ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ssnr", [0.3, 0.6, 0.9, 0.99])
def test_gaussian_noise_has_a_standard_deviation_from_the_signal_ratio(ssnr: float) -> None:
    noise = noisy(grey(60, 32), GAUSSIAN, ssnr).to(torch.float64) - 0.5
    sd, count = (1 - ssnr) / 6, noise.numel()
    assert abs(noise.mean()) < 4 * sd / count**0.5
    assert abs(noise.std() / sd - 1) < 4 * (2 * count) ** -0.5
    assert stats.kstest(noise.ravel().numpy(), stats.norm(0, sd).cdf).pvalue > UNLIKELY


def test_gaussian_noise_is_independent_in_channels_pixels_and_images() -> None:
    noise = (noisy(grey(60, 32), GAUSSIAN, 0.7) - 0.5).to(torch.float64).numpy() / 0.05
    for name, products in {
        "red and green": noise[:, 0] * noise[:, 1],
        "red and blue": noise[:, 0] * noise[:, 2],
        "green and blue": noise[:, 1] * noise[:, 2],
        "across": noise[..., 1:] * noise[..., :-1],
        "down": noise[..., 1:, :] * noise[..., :-1, :],
        "images": noise[1:] * noise[:-1],
    }.items():
        assert abs(products.mean()) < 4 / products.size**0.5, name


def test_three_standard_deviations_of_pure_noise_reach_from_black_to_white() -> None:
    pixels = noisy(pictures(60, 32), GAUSSIAN, 0.0)
    assert (pixels.min(), pixels.max()) == (0, 1)
    for clamped in (pixels == 0, pixels == 1):
        num_clamped = int(clamped.sum())
        assert stats.binomtest(num_clamped, pixels.numel(), stats.norm.sf(3)).pvalue > UNLIKELY


# -- the signal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GAUSSIAN, FOURIER])
@pytest.mark.parametrize("ssnr", [0.6, 0.9])
def test_the_signal_shrinks_toward_mid_gray_independently_of_the_noise(kind: int, ssnr: float) -> None:
    # From 0.45 to 0.55, so that nothing is clamped.
    images = pictures(8, 16) * 0.1 + 0.45
    signal = noisy(images, kind, ssnr) - noisy(grey(8, 16), kind, ssnr)
    torch.testing.assert_close(signal, (images - 0.5) * ssnr, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [GAUSSIAN, FOURIER])
@pytest.mark.parametrize("size", SIZES)
def test_a_ratio_of_1_leaves_an_image_as_it_is(kind: int, size: int) -> None:
    images = pictures(4, size)
    torch.testing.assert_close(noisy(images, kind, 1.0), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [GAUSSIAN, FOURIER])
def test_at_a_ratio_of_0_nothing_is_left_of_the_image(kind: int) -> None:
    torch.testing.assert_close(noisy(pictures(4, 16), kind, 0.0), noisy(grey(4, 16), kind, 0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [GAUSSIAN, FOURIER])
@pytest.mark.parametrize("size", SIZES)
def test_noisy_images_stay_between_black_and_white(kind: int, size: int) -> None:
    images = torch.cat([pictures(4, size), torch.zeros(2, 3, size, size), torch.ones(2, 3, size, size)])
    for ssnr in (0.0, 0.2, 0.8):
        found = noisy(images, kind, ssnr)
        assert found.dtype == torch.float32
        assert found.shape == images.shape
        assert found.min() >= 0
        assert found.max() <= 1


@pytest.mark.parametrize("kind", [GAUSSIAN, FOURIER])
@pytest.mark.parametrize("size", SIZES)
def test_an_image_has_the_same_noise_whatever_else_is_in_the_batch(kind: int, size: int) -> None:
    images, ssnrs = pictures(6, size), np.array([0.0, 0.3, 1.0, 0.5, 0.9, 0.1])
    noise = AddNoise(["gaussian", "fourier"], [0.0], [1.0], half_spectrum(amplitudes(size)))
    mixed = NoiseParameters(ssnrs, np.array([kind, -1, 1 - kind, kind, kind, 1 - kind]), keys(6))
    together = noise.apply(images.clone(), mixed)
    for row in range(6):
        alone = noise.apply(images[row : row + 1].clone(), mixed[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-6)
    assert torch.equal(together[1], images[1])


# -- Fourier ----------------------------------------------------------------------------------------------------


def mirrored(spectrum: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every frequency's negative, of a full spectrum (..., size, size)."""
    return np.roll(np.flip(spectrum, (-2, -1)), 1, (-2, -1))


@pytest.mark.parametrize("size", [3, 8, 9, 32, 33])
def test_pure_fourier_noise_has_the_mean_spectrum_in_every_frequency_but_zero(size: int) -> None:
    spectrum = amplitudes(size).numpy().astype(np.float64)
    # A field whose spectrum is one channel's times a factor, since it is scaled to reach 0 and 1.
    found = np.abs(np.fft.fft2(noisy(pictures(5, size), FOURIER, 0.0).numpy().astype(np.float64)))
    ratios = (found / spectrum).reshape(5, 3, -1)[..., 1:]
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios.mean(-1, keepdims=True), ratios.shape), rtol=1e-3)


@pytest.mark.parametrize("size", [8, 33])
def test_the_spectrum_that_is_kept_is_not_mistaken_across_channels_or_turned(size: int) -> None:
    """A spectrum with all of its power in one frequency makes waves along that direction, in that channel."""
    spectrum = torch.zeros(3, size, size)
    for channel, (down, across) in enumerate([(1, 0), (0, 2), (3, 1)]):
        spectrum[channel, down, across] = spectrum[channel, -down, -across] = 1.0
    field = fourier_field(keys(3), half_spectrum(spectrum)).numpy()
    power = np.abs(np.fft.fft2(field)) ** 2
    power[..., 0, 0] = 0
    for channel, (down, across) in enumerate([(1, 0), (0, 2), (3, 1)]):
        share = power[:, channel, down, across] + power[:, channel, -down, -across]
        np.testing.assert_allclose(share, power[:, channel].sum((-2, -1)), rtol=1e-4)


@pytest.mark.parametrize("size", [2, 3, 8, 33])
def test_a_field_reaches_0_and_1_in_every_channel(size: int) -> None:
    field = fourier_field(keys(20), half_spectrum(amplitudes(size)))
    assert (field.amin((-2, -1)) == 0).all()
    assert (field.amax((-2, -1)) == 1).all()


@pytest.mark.parametrize("size", [32, 33])
def test_fourier_phases_are_uniform_and_independent_of_another(size: int) -> None:
    spectrum = np.fft.fft2(fourier_field(keys(60), half_spectrum(amplitudes(size))).numpy().astype(np.float64))
    np.testing.assert_allclose(mirrored(spectrum), spectrum.conj(), atol=1e-9)  # a real field
    phases = np.angle(spectrum) / (2 * np.pi) + 0.5
    down, across = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    # One of each pair of frequencies; those that are their own mirror images have a sign only.
    one_each = ((across > 0) & (across < 0.5)) | (np.isin(across, (0, -0.5)) & (down > 0) & (down < 0.5))
    assert one_each.sum() == (size**2 - (1 if size % 2 else 4)) / 2
    free = phases[..., one_each]
    assert stats.kstest(free.ravel(), "uniform").pvalue > UNLIKELY
    own_columns = phases[..., 1 : (size + 1) // 2, [0] if size % 2 else [0, size // 2]]
    assert stats.kstest(own_columns.ravel(), "uniform").pvalue > UNLIKELY
    waves = np.exp(2j * np.pi * free)
    for name, products in {
        "zero mean": waves,
        "channels": waves[:, 1:] * waves[:, :-1].conj(),
        "channels, mirrored": waves[:, 1:] * waves[:, :-1],
        "images": waves[1:] * waves[:-1].conj(),
        "frequencies": waves[..., 1:] * waves[..., :-1].conj(),
        "frequencies, mirrored": waves[..., 1:] * waves[..., :-1],
    }.items():
        assert abs(products.mean()) < 4 / products.size**0.5, name


def test_frequencies_that_are_their_own_mirror_images_have_either_sign_equally_often() -> None:
    size, spectrum = 8, amplitudes(8)
    waves = np.fft.fft2(fourier_field(keys(700), half_spectrum(spectrum)).numpy().astype(np.float64))
    for own in [(0, 4), (4, 0), (4, 4)]:
        wave = waves[..., own[0], own[1]].ravel()
        np.testing.assert_allclose(wave.imag, 0, atol=1e-6 * size**2)
        assert stats.binomtest(int((wave.real > 0).sum()), len(wave)).pvalue > UNLIKELY


@pytest.mark.parametrize("size", [2, 3, 8, 33])
def test_numpys_full_transform_with_the_same_phases_gives_the_same_field(size: int) -> None:
    """The published way: amplitudes times exp(i phase), the inverse transform, its real part, scaled to 0..1."""
    spectrum = amplitudes(size).numpy().astype(np.float64)
    field = fourier_field(keys(4), half_spectrum(amplitudes(size))).numpy().astype(np.float64)
    waves = np.fft.ifft2(spectrum * np.exp(1j * np.angle(np.fft.fft2(field))))
    assert np.abs(waves.imag).max() < 1e-6 * np.abs(waves.real).max()
    low, high = waves.real.min((-2, -1), keepdims=True), waves.real.max((-2, -1), keepdims=True)
    np.testing.assert_allclose((waves.real - low) / (high - low), field, rtol=0, atol=2e-5)


def test_the_modulus_is_distributed_as_with_shuffled_phases_of_images() -> None:
    """As the code of Coggan and Tong makes it with NumPy, of the phases of images: by mean and sd of each field."""
    spectrum, rng = amplitudes(33), np.random.default_rng(0)
    ours = modulus_field(keys(400), spectrum)
    assert ours.shape == (400, 3, 33, 33)
    assert ours.amin((2, 3)).max() == 0
    assert (ours.amax((2, 3)) - 1).abs().max() < 1e-6
    theirs = []
    for image in pictures(400, 33, seed=9)[:, 1].numpy():
        phases = np.angle(np.fft.fft2(image))
        rng.shuffle(phases.reshape(-1))
        field = np.abs(np.fft.ifft2(spectrum[1].numpy() * np.exp(1j * phases)))
        theirs.append((field - field.min()) / (field.max() - field.min()))
    for figure in (np.mean, np.std, lambda fields, axis: stats.skew(fields.reshape(len(fields), -1), axis=1)):
        measured = [figure(fields, axis=(1, 2)) for fields in (ours[:, 1].numpy(), np.stack(theirs))]
        assert stats.ks_2samp(*measured).pvalue > UNLIKELY


def test_numpys_complex_transform_with_the_same_phases_gives_the_same_modulus() -> None:
    spectrum = amplitudes(8)
    phases = 2 * np.pi * uniform_field(keys(5), (3, 8, 8)).numpy().astype(np.float64)
    field = np.abs(np.fft.ifft2(spectrum.numpy() * np.exp(1j * phases)))
    low, high = field.min((2, 3), keepdims=True), field.max((2, 3), keepdims=True)
    np.testing.assert_allclose(modulus_field(keys(5), spectrum).numpy(), (field - low) / (high - low), atol=1e-5)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_job_chooses_the_part_of_the_field_that_is_seen(make_job: Callable[..., Job], on_device: bool) -> None:
    noise = {"noise_types": "fourier", "ssnrs": 0, "probs": 1}
    spectrum = amplitudes(16)
    for part, field, given in (("real", fourier_field, half_spectrum(spectrum)), ("modulus", modulus_field, spectrum)):
        job = make_job(dataset="digits", image_size=16, mean=0, std=1, Noise={**noise, "fourier_part": part})
        views = training_views(job, spectrum, on_device=on_device)
        indices = np.arange(5)
        plan = BatchPlan(1, 0, indices, indices)
        images = ImageReader(Digits("val"), views, replace_corrupt=False)(plan).inputs.on("cpu")
        expected = field(views.draws(plan, indices).keys("noise field"), given)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_a_field_of_no_contrast_is_no_division_by_zero(size: int) -> None:
    only_mean = torch.zeros(3, size, size)
    only_mean[:, 0, 0] = 7.0
    for spectrum in (only_mean, torch.zeros(3, size, size)):
        field = fourier_field(keys(3), half_spectrum(spectrum))
        assert torch.isfinite(field).all()
        assert field.min() >= 0
        assert field.max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_half_a_spectrum_is_what_rfft2_gives(size: int) -> None:
    image = pictures(1, size)[0]
    half = half_spectrum(torch.fft.fft2(image).abs())
    assert half.is_contiguous()
    torch.testing.assert_close(half, torch.fft.rfft2(image).abs(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_a_pink_spectrum_falls_as_one_over_the_frequency(size: int) -> None:
    spectrum = pink_spectrum(size).numpy()
    assert spectrum.dtype == np.float32
    assert spectrum.shape == (3, size, size // 2 + 1)
    assert np.isfinite(spectrum).all()
    for down in range(size):
        for across in range(size // 2 + 1):
            if down or across:
                frequency = np.hypot(min(down, size - down), across) / size
                np.testing.assert_allclose(spectrum[:, down, across], 1 / frequency, rtol=1e-5)


# -- what is drawn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ssnrs", "probs", "expected"),
    [
        ([0.2, 0.4, 0.6], [0.6], {0.2: 0.2, 0.4: 0.2, 0.6: 0.2, None: 0.4}),
        ([0.2, 0.4], [1.0], {0.2: 0.5, 0.4: 0.5}),
        ([0.2, 0.4, 0.6], [0.1, 0.5, 0.2], {0.2: 0.1, 0.4: 0.5, 0.6: 0.2, None: 0.2}),
        ([0.0, 1.0], [0.3, 0.7], {0.0: 0.3, 1.0: 0.7}),
        ([0.5, 0.7], [0.0, 0.25], {0.7: 0.25, None: 0.75}),
        ([0.5], [0.0], {None: 1.0}),
    ],
)
def test_each_signal_ratio_is_drawn_with_its_given_probability(
    ssnrs: list[float], probs: list[float], expected: dict[float | None, float]
) -> None:
    drawn = AddNoise(["gaussian"], ssnrs, probs).draw(draws(MANY))
    assert set(drawn.kind) <= {-1, 0}
    counts = [
        int((drawn.kind < 0).sum()) if ssnr is None else int(((drawn.ssnr == ssnr) & (drawn.kind == 0)).sum())
        for ssnr in expected
    ]
    assert sum(counts) == MANY
    assert (drawn.ssnr[drawn.kind < 0] == 1).all()
    if len(counts) > 1:
        assert stats.chisquare(counts, [MANY * share for share in expected.values()]).pvalue > UNLIKELY


def test_both_types_are_equally_frequent_whatever_the_ratio() -> None:
    drawn = AddNoise(["fourier", "gaussian"], [0.2, 0.4, 0.6], [0.1, 0.5, 0.2], half_spectrum(amplitudes(8))).draw(
        draws(MANY)
    )
    assert set(drawn.kind) == {-1, 0, 1}
    some = drawn.kind >= 0
    assert stats.chisquare(np.bincount(drawn.kind[some])).pvalue > UNLIKELY
    counts = stats.contingency.crosstab(drawn.kind[some], drawn.ssnr[some]).count
    assert stats.chi2_contingency(counts).pvalue > UNLIKELY
    assert len(np.unique(drawn.key)) == MANY


def test_the_types_are_numbered_as_they_are_given() -> None:
    noise = AddNoise(["fourier", "gaussian"], [0.0], [1.0], half_spectrum(amplitudes(16)))
    drawn = noise.draw(draws(40))
    found = noise.apply(pictures(40, 16), noise.fetch(drawn))
    # Fourier noise reaches exactly 0 and 1 in each channel.
    extremes = (found.amin((-2, -1)) == 0) & (found.amax((-2, -1)) == 1)
    assert extremes.all(1).tolist() == (drawn.kind == 0).tolist()


def test_the_noise_of_an_image_is_independent_of_its_batch() -> None:
    noise = AddNoise(["gaussian", "fourier"], [0.2, 0.6], [0.4, 0.4], half_spectrum(amplitudes(8)))
    batch = noise.draw(draws(20, num_views=2))
    for image in (0, 7, 19):
        alone = noise.draw(draws(0, indices=np.array([image]), num_views=2))
        part = batch[2 * image : 2 * image + 2]
        assert (alone.ssnr.tolist(), alone.kind.tolist()) == (part.ssnr.tolist(), part.kind.tolist())
        assert alone.key.tolist() == part.key.tolist()


def test_fourier_noise_without_a_spectrum_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="Fourier noise needs a spectrum"):
        AddNoise(["gaussian", "fourier"], [0.5], [1.0])
