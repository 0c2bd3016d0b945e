"""DATA: made-up pictures, of which a network that was trained on real ones makes something sensible.

Each is drawn from its own random numbers alone: every second one is colored shapes that lie over one another, the rest
are clouds of noise. They show nothing; they only have edges, plain areas and colors as pictures have.

Source:
    Both kinds are those of Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021, arXiv:2106.05963,
    section 3: dead leaves (shapes), and noise with a spectrum of 1/f**a, colors correlated.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_MOST_SHAPES = 40
# Exponent of the spectrum; natural pictures have about 1, smoother ones more.
_EXPONENT = 1.5
# Share of the noise that all channels have in common, and what each has of its own.
_COMMON, _OWN = 0.75, 0.5


def draw_picture(index: int, size: tuple[int, int], channels: int, seed: int = 0) -> Array:
    """Draw one picture.

    Args:
        index: Which; even ones are shapes, odd ones are noise.
        size: Height and width in pixels.
        channels: Number of channels.
        seed: Another seed gives other pictures.

    Returns:
        Pixels, shape `(H, W, C)`, uint8.
    """
    rng = np.random.default_rng([seed, index])
    light = _draw_noise(rng, size, channels) if index % 2 else _draw_shapes(rng, size, channels)
    return np.asarray(np.rint(255 * np.clip(light, 0, 1)), np.uint8)


def _draw_shapes(rng: np.random.Generator, size: tuple[int, int], channels: int) -> Array:
    """Ellipses and rectangles, few large and many small ones, gently shaded."""
    height, width = size
    light: Array = np.full((height, width, channels), rng.random(channels))
    for _ in range(rng.integers(3, _MOST_SHAPES)):
        radius = min(size) * 0.5 / (1 + 12 * rng.random())
        row, column = rng.random(2) * size
        color = rng.random(channels) if rng.random() < 0.7 else np.full(channels, rng.random())
        angle, flatness, is_round = rng.random() * np.pi, 0.3 + 0.7 * rng.random(), rng.random() < 0.5
        slope = 0.3 / min(size) * rng.normal(size=2)
        reach = 1.5 * radius
        top, left = max(0, int(row - reach)), max(0, int(column - reach))
        part = light[top : int(row + reach) + 1, left : int(column + reach) + 1]
        down, right = np.ogrid[: part.shape[0], : part.shape[1]]
        down, right = down - (row - top), right - (column - left)
        along = (right * np.cos(angle) + down * np.sin(angle)) / radius
        across = (down * np.cos(angle) - right * np.sin(angle)) / (radius * flatness)
        inside = along**2 + across**2 < 1 if is_round else (abs(along) < 1) & (abs(across) < 1)
        shade = 1 + slope[0] * right + slope[1] * down
        part[inside] = np.clip(color * shade[inside][:, None], 0, 1)
    return light


def _draw_noise(rng: np.random.Generator, size: tuple[int, int], channels: int) -> Array:
    """Noise whose spectrum falls with the frequency, of random contrast and brightness."""
    height, width = size
    spectrum = np.fft.rfft2(rng.standard_normal((channels, height, width)))
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    spectrum /= np.maximum(frequencies, 1 / max(size)) ** _EXPONENT
    noise = np.fft.irfft2(spectrum, size).transpose(1, 2, 0)
    noise -= noise.mean(axis=(0, 1))
    noise /= np.maximum(noise.std(axis=(0, 1)), 1e-12)
    mixed = _COMMON * np.sqrt(channels) * noise.mean(axis=2, keepdims=True) + _OWN * noise
    return np.asarray(0.5 + rng.normal(0, 0.15) + 0.25 * rng.uniform(0.4, 1.6) * mixed)
