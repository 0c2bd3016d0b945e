"""Make pictures of text, for nets that find it: words on light grounds, in several sizes and places.

python models/make_text.py --out text224.npz
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

VOCABULARY = (
    "north river garden market bridge window orange silver coffee winter summer island castle forest letter number "
    "doctor engine flower kitchen library mountain ocean paper quarter station ticket village weather yellow zebra"
)
SMALLEST, LARGEST = 12, 34


def draw_page(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw lines of words, dark on a light ground.

    Args:
        rng: Where words, sizes and colours come from.
        side: Height and width in pixels.

    Returns:
        The picture, RGB.
    """
    page = Image.new("RGB", (side, side), tuple(int(level) for level in rng.integers(190, 256, 3)))
    pen, top = ImageDraw.Draw(page), float(rng.integers(4, 30))
    while top < side - SMALLEST:
        size = float(rng.integers(SMALLEST, LARGEST))
        text = " ".join(rng.choice(VOCABULARY.split(), rng.integers(1, 5)))
        ink = tuple(int(level) for level in rng.integers(0, 100, 3))
        pen.text((float(rng.integers(2, side // 3)), top), text, ink, ImageFont.load_default(size))
        top += size * float(rng.uniform(1.2, 2.5))
    return page


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write, .npz with `x`.")
@click.option("--count", default=160, show_default=True)
@click.option("--side", default=224, show_default=True, help="Height and width in pixels.")
@click.option("--seed", default=0, show_default=True)
def main(out: Path, count: int, side: int, seed: int) -> None:
    """Draw the pictures, as `x`: uint8, (count, 3, side, side), RGB."""
    rng = np.random.default_rng(seed)
    pages = [np.asarray(draw_page(rng, side)).transpose(2, 0, 1) for _ in range(count)]
    np.savez_compressed(out, x=np.stack(pages))
    click.echo(f"{out}: {count} pictures of {side} x {side} pixels")


if __name__ == "__main__":
    main()
