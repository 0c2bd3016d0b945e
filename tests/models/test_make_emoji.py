"""The recipe of the emoji data, on made-up packages of three emoji."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("tomllib")

SKIN = {"1F3FB": {"unified": "1F9D1-1F3FB"}}


def make_entry(code, name, category, subcategory, order):
    return {
        "unified": code,
        "short_name": name,
        "category": category,
        "subcategory": subcategory,
        "sort_order": order,
    }


CATALOGUE = [
    make_entry("2744-FE0F", "snowflake", "Travel & Places", "sky", 9),
    make_entry("1F3FB", "skin-tone-2", "Component", "tone", 5),
    make_entry("1F9D1", "adult", "People & Body", "person", 3) | {"skin_variations": SKIN},
]
COLORS = {"2744-FE0F": (0, 0, 255, 255), "1F9D1": (250, 200, 0, 255), "1F9D1-1F3FB": (255, 255, 255, 255)}
CORNER = (101, 0, 0, 51)  # in the first pixel; a fifth of it shows
VENDORS = ("google", "twitter", "openmoji")


def make_png(color, size):
    picture = Image.new("RGBA", (size, size), color)
    picture.putpixel((0, 0), CORNER)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write_package(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def draw_svg(svg_string, width, height, skip_system_fonts):
    assert width == height == 128
    assert skip_system_fonts
    return make_png(COLORS[svg_string], width)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The recipe with a manifest of made-up packages, which lie in the folder `registry`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "models"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "resvg_py", types.SimpleNamespace(svg_to_bytes=draw_svg))
    catalogue = {"emoji.json": json.dumps(CATALOGUE).encode()}
    lines = ["[[data]]", 'name = "emoji"', f'sha256 = {{ x = "{"0" * 64}" }}']
    for vendor in VENDORS:
        folder = Path(f"registry/{vendor}/-")
        folder.mkdir(parents=True)
        path = folder / f"{vendor}-1.0.0.tgz"
        if vendor == "openmoji":
            # Its drawing of the snowflake has the code without U+FE0F.
            files = {f"svg/{code.removesuffix('-FE0F')}.svg": code.encode() for code in COLORS}
        else:
            files = catalogue | {f"svg/{code.lower()}.png": make_png(color, 64) for code, color in COLORS.items()}
        write_package(path, files)
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        lines += ["[[data.packages]]", f'name = "{vendor}"', 'version = "1.0.0"', f'vendor = "{vendor}"']
        lines += [f'integrity = "sha512-{digest}"', 'licence = "MIT"', 'author = "A. B."', 'members = "package/svg"']
    Path("manifest.toml").write_text("\n".join(lines))
    monkeypatch.delitem(sys.modules, "make_emoji", raising=False)  # it holds another test's stand-in of resvg_py
    script = importlib.import_module("make_emoji")
    monkeypatch.setattr(script, "MANIFEST", Path("manifest.toml"))
    return script


def run(script, *options):
    registry = Path("registry").resolve().as_uri()
    return CliRunner().invoke(script.main, ["--out", "emoji.npz", "--registry", registry, *options])


def test_every_emoji_is_drawn_and_labelled_once_per_vendor(script):
    result = run(script)
    assert result.exit_code == 0, result.output
    assert "9 images, 0 of them of test emoji" in result.output
    assert "licence   openmoji: A. B., MIT" in result.output
    with np.load("emoji.npz") as archive:
        data = dict(archive)
    assert data["names"].tolist() == ["snowflake", "adult"]
    assert data["classes"].tolist() == ["People & Body", "Travel & Places"]  # in Unicode's order
    assert data["subclasses"].tolist() == ["person", "sky"]
    assert data["y"].tolist() == [1] * 3 + [0] * 6
    assert data["sub"].tolist() == [1] * 3 + [0] * 6
    assert data["base"].tolist() == [0] * 3 + [1] * 6
    assert data["skin"].tolist() == [False] * 6 + [True] * 3
    assert data["vendor"].tolist() == [0, 1, 2] * 3
    assert data["licences"].tolist() == ["MIT"] * 3
    assert data["x"].shape == (9, 3, 32, 32)
    for position, code in enumerate(COLORS):
        for vendor in range(3):
            assert data["x"][3 * position + vendor, :, 31, 31].tolist() == list(COLORS[code][:3])


def test_transparent_pixels_are_laid_on_white_before_they_are_averaged(script):
    assert run(script).exit_code == 0
    with np.load("emoji.npz") as archive:
        x = archive["x"]
    # A fifth of (101, 0, 0) on white is (224, 204, 204), which is one of four pixels; the others are blue.
    assert x[0, :, 0, 0].tolist() == [224 // 4, 204 // 4, round((204 + 3 * 255) / 4)]
    # One of sixteen, where the drawing is twice as large.
    assert np.abs(x[2, :, 0, 0] - np.array([224, 204, 204 + 15 * 255]) / 16).max() <= 0.75


def test_a_fifth_of_the_emoji_are_test_emoji_whatever_the_others_are(script):
    chosen = [name for name in map(str, range(2000)) if script.is_test(name)]
    assert 350 <= len(chosen) <= 450
    assert script.is_test("zero")
    assert not script.is_test("hash")


def test_compare_says_how_far_other_data_are(script):
    assert run(script).exit_code == 0
    with np.load("emoji.npz") as archive:
        data = dict(archive)
    Path("emoji.npz").rename("same.npz")
    result = run(script, "--compare", "same.npz")
    assert "labels    equal: y, sub" in result.output
    assert "twitter: 100.0% of images equal, mean absolute difference 0.0000" in result.output

    data["x"][1, 0, 0, 0] += 32  # the first of twitter's three images; 32 of 3 x 3072 numbers are one in 288
    data["is_test"][0] ^= True
    np.savez("other.npz", **data)
    Path("emoji.npz").unlink()
    result = run(script, "--compare", "other.npz")
    assert "labels    differ in is_test\n" in result.output
    assert "google: 100.0% of images equal" in result.output
    assert "twitter: 66.7% of images equal, mean absolute difference 0.0035" in result.output


def test_the_manifest_tells_whether_data_are_as_recorded(script):
    assert "manifest  other than recorded: x\n" in run(script).output
    with np.load("emoji.npz") as archive:
        digest = hashlib.sha256(archive["x"].tobytes()).hexdigest()
    manifest = Path("manifest.toml")
    manifest.write_text(manifest.read_text().replace("0" * 64, digest))
    Path("emoji.npz").unlink()
    assert "manifest  all as recorded\n" in run(script).output


def test_a_package_with_another_checksum_is_refused(script):
    package = Path("registry/twitter/-/twitter-1.0.0.tgz")
    package.write_bytes(package.read_bytes() + b"more")
    result = run(script)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert result.output.startswith("Error: not twitter 1.0.0, whose checksum is sha512-")
    assert "twitter-1.0.0.tgz: nothing of it was kept" in result.output
    assert not Path("emoji.npz").exists()
    assert [path.name for path in Path("emoji_packages").iterdir()] == ["google-1.0.0.tgz"]


def test_a_package_that_lies_there_is_used_but_checked(script):
    assert run(script).exit_code == 0
    Path("emoji.npz").unlink()
    Path("registry").rename("gone")
    Path("registry").mkdir()
    assert run(script).exit_code == 0
    Path("emoji.npz").unlink()
    Path("emoji_packages/google-1.0.0.tgz").write_bytes(b"cut")
    result = run(script)
    assert result.exit_code == 1
    assert "google-1.0.0.tgz: delete it, and it is fetched again" in result.output


def test_a_registry_that_does_not_answer_is_said_in_one_line(script):
    Path("registry/google/-/google-1.0.0.tgz").unlink()
    result = run(script)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "google-1.0.0.tgz cannot be fetched: " in result.output
    assert "give --registry" in result.output


def test_a_missing_drawing_leaves_no_file(script, monkeypatch):
    monkeypatch.setitem(SKIN, "1F3FF", {"unified": "1F9D1-1F3FF"})
    catalogue = {"emoji.json": json.dumps(CATALOGUE).encode()}
    files = catalogue | {f"svg/{code.lower()}.png": make_png(color, 64) for code, color in COLORS.items()}
    package = Path("registry/google/-/google-1.0.0.tgz")
    before = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    write_package(package, files)
    after = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    manifest = Path("manifest.toml")
    manifest.write_text(manifest.read_text().replace(before, after))
    result = run(script)
    assert result.exit_code == 1
    assert "google-1.0.0.tgz has no image of 1F9D1-1F3FF (adult)" in result.output
    assert not list(Path().glob("emoji.*"))


def test_what_is_there_is_not_overwritten(script):
    Path("emoji.npz").write_bytes(b"mine")
    result = run(script)
    assert result.exit_code == 1
    assert "is there already" in result.output
    assert Path("emoji.npz").read_bytes() == b"mine"


def test_what_cannot_be_compared_or_written_is_said_in_one_line(script):
    Path("text.npz").write_text("no arrays")
    with Path("array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    for name in ("text.npz", "array.npz"):
        result = run(script, "--compare", name)
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: {name} is no .npz file of arrays: ")
        assert result.output.count("\n") == 1
    Path("folder").write_text("a file")
    result = run(script, "--out", "folder/emoji.npz")
    assert result.exit_code == 1
    assert "emoji.npz cannot be written: " in result.output
    assert result.output.count("\n") == 1


def test_svg_files_are_drawn_to_their_edges(script, monkeypatch):
    monkeypatch.delitem(sys.modules, "resvg_py")
    monkeypatch.setattr(script, "resvg_py", pytest.importorskip("resvg_py"))
    half = '<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"><path fill="#00f" d="M0 0h36v72H0z"/></svg>'
    x = script.draw(half.encode())
    assert (x[:, :, :16] == np.array([0, 0, 255])[:, None, None]).all()
    assert (x[:, :, 16:] == 255).all()


def test_the_manifest_itself_is_complete(script, monkeypatch):
    monkeypatch.setattr(script, "MANIFEST", Path(__file__).parents[2] / "models" / "MANIFEST.toml")
    packages, recorded = script.load_manifest()
    assert [package.vendor for package in packages] == list(VENDORS)
    assert set(recorded) == {"x", *script.LABELS}
    assert all(len(base64.b64decode(package.integrity.removeprefix("sha512-"))) == 64 for package in packages)
