"""Trained networks with images to calibrate on and others to measure on, of which no image is in both."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from machine import ROOT
from PIL import Image, ImageDraw, ImageFont

from srr_onnx import Model, load_model

Array = np.ndarray[Any, Any]

EMOJI_NETS = ("resnet20", "resnet56", "vgg7_bn", "vgg16_bn", "densenet40", "mobilenet_v2", "shufflenet_v2")
ASSETS = ROOT / "srr_onnx" / "assets"
PHOTO_NETS = ("efficientnet_lite0", "opennsfw")
TEXT_NETS = ("ppocr_rec", "ppocr_cls")
# Photographs to take calibration images from; the others are measured on.
_CALIBRATION_PHOTOS = 160
# Split of the bundled network with its bundled images, which needs no other file.
BUNDLED = "bundled"
_TEXTS = {"calibration": 160, "test": 120}
# ImageNet's ids of the photographs' super-classes, in the order of the file's `super_names`.
_SUPER_CLASSES = (
    (*range(101, 107), *range(147, 300), *range(330, 389)),
    (*range(7, 25), *range(80, 101), *range(127, 147)),
    tuple(range(300, 327)),
    (*range(7), *range(389, 398)),
    tuple(range(936, 958)),
)
_WORDS = (
    "north river garden market bridge window orange silver coffee winter summer island castle forest letter number "
    "doctor engine flower kitchen library mountain ocean paper quarter station ticket village weather yellow zebra "
    "address balance camera dinner eleven family guitar hotel invoice journal key lemon museum note office pencil"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network and its images.

    Attributes:
        net: Name.
        split: Which images were trained on.
        seed: Of the training.
        model: Loaded model.
        images: Preprocessed images to calibrate on, by domain; "own" is the network's own, which it was trained on.
        test: Preprocessed images to measure on.
        judge: Takes the first output on `test`, says of every image with a label whether it is right; None where
            none has one.
        guess: Share of the labelled images that is right by always giving the most frequent answer.
        samples: How many images to calibrate with.
        labels: Classes of the network's own images, `(S,)`; None where unknown.
    """

    net: str
    split: str
    seed: int
    model: Model
    images: Mapping[str, Array]
    test: Array
    judge: Callable[[Array], Array | None]
    guess: float = 0.0
    samples: int = 512
    labels: Array | None = None


def find_model(net: str, split: str, seed: int, zoo: Path, trained: Path) -> Path:
    """Where a network's file is, if it is there."""
    if net not in EMOJI_NETS:
        return zoo / ("efficientnet_lite0.ts.onnx" if net == "efficientnet_lite0" else f"{net}.onnx")
    if (net, split, seed) == ("resnet20", "emoji", 0):
        return ASSETS / "resnet20_emoji.onnx"
    return trained / f"{net}.{split}.{seed}" / f"{net}_emoji.onnx"


def load_subject(
    net: str, split: str, seed: int, zoo: Path, trained: Path, data: Path, part: str = "test"
) -> Subject | str:
    """Load a network and its images.

    Args:
        net: One of the names above.
        split: "emoji", "image" or "bundled" for the emoji networks, else "".
        seed: Of the training.
        zoo: Folder of networks trained elsewhere.
        trained: Folder of what `models/train_emoji.py` wrote, one folder NET.SPLIT.SEED each.
        data: Folder of the image files.
        part: What the emoji networks are measured on: "test", or the "validation" images, to choose settings by.

    Returns:
        The subject, or why there is none.
    """
    if split == BUNDLED:
        return _load_bundled()
    path = find_model(net, split, seed, zoo, trained)
    needed = [path, *([data / "emoji_free32.npz"] if net in EMOJI_NETS else [])]
    needed += [data / "tuxphotos224.npz"] if net in PHOTO_NETS else []
    for file in needed:
        if not file.exists():
            return f"{net} {split} {seed} is left out: there is no {file}"
    if net in EMOJI_NETS:
        return _load_emoji_net(net, split, seed, path, data, part)
    return _load_photo_net(net, path, data) if net in PHOTO_NETS else _load_text_net(net, path)


@lru_cache(maxsize=2)
def _load_emoji(path: Path, split: str) -> Any:
    sys.path.insert(0, str(ROOT / "models"))
    from train_emoji import load_emoji

    return load_emoji(path, split)


def _load_emoji_net(net: str, split: str, seed: int, path: Path, data: Path, part: str) -> Subject:
    emoji = _load_emoji(data / "emoji_free32.npz", split)
    measured = getattr(emoji, part)
    subject = _make_emoji_subject(net, split, seed, path, (emoji.train.x, emoji.train.y), (measured.x, measured.y))
    if not (data / "tuxphotos224.npz").exists():
        return subject
    with np.load(data / "tuxphotos224.npz") as archive:
        photos = archive["x"]
    small = [Image.fromarray(x.transpose(1, 2, 0)).resize((32, 32), Image.Resampling.BOX) for x in photos]
    foreign = np.stack([np.asarray(image) for image in small]).transpose(0, 3, 1, 2) / np.float32(255)
    return dataclasses.replace(subject, images={**subject.images, "photographs": foreign})


def _load_bundled() -> Subject:
    """The bundled network and its bundled images, a quarter of those that it was trained on."""
    parts = []
    for name in ("emoji_train.npz", "emoji_test.npz"):
        with np.load(ASSETS / name) as archive:
            parts.append((archive["x"], archive["y"]))
    return _make_emoji_subject("resnet20", BUNDLED, 0, ASSETS / "resnet20_emoji.onnx", *parts)


def _make_emoji_subject(
    net: str, split: str, seed: int, path: Path, own: tuple[Array, Array], measured: tuple[Array, Array]
) -> Subject:
    """An emoji network with pairs of pixels and labels: its own, and those to measure on."""
    wanted = measured[1]
    return Subject(
        net,
        split,
        seed,
        load_model(path),
        {"own": own[0].astype(np.float32) / 255},
        measured[0].astype(np.float32) / 255,
        lambda outputs: outputs.argmax(1) == wanted,
        guess=float(np.bincount(wanted).max() / len(wanted)),
        labels=own[1].astype(np.int64),
    )


def _load_photo_net(net: str, path: Path, data: Path) -> Subject:
    with np.load(data / "tuxphotos224.npz") as archive:
        photos, classes = archive["x"], archive["imagenet_super"]
    order = np.random.default_rng(0).permutation(len(photos))
    if net == "opennsfw":
        images = photos.transpose(0, 2, 3, 1)[..., ::-1] - np.array([104, 117, 123], np.float32)
    else:
        mean, std = (np.array(v, np.float32)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        images = (photos / np.float32(255) - mean) / std
    images = images[order].astype(np.float32)
    wanted = classes[order][_CALIBRATION_PHOTOS:]

    def judge(outputs: Array) -> Array | None:
        if net == "opennsfw":
            return None
        is_mapped = wanted >= 0
        hits = [
            top in _SUPER_CLASSES[c] for top, c in zip(outputs.argmax(1)[is_mapped], wanted[is_mapped], strict=True)
        ]
        return np.array(hits)

    own, test = images[:_CALIBRATION_PHOTOS], images[_CALIBRATION_PHOTOS:]
    named = wanted[wanted >= 0]
    guess = 0.0 if net == "opennsfw" else float(np.bincount(named).max() / len(named))
    return Subject(net, "", 0, load_model(path), {"own": own}, test, judge, guess, samples=128)


def _load_text_net(net: str, path: Path) -> Subject:
    size = (320, 48) if net == "ppocr_rec" else (192, 48)
    texts = list(_make_texts(sum(_TEXTS.values())))
    pictures = [_render(text, size) for text in texts]
    turned = np.random.default_rng(1).random(len(texts)) < 0.5
    if net == "ppocr_cls":
        pictures = [picture.rotate(180) if turn else picture for picture, turn in zip(pictures, turned, strict=True)]
    pixels = np.stack([np.asarray(picture) for picture in pictures])[..., ::-1].transpose(0, 3, 1, 2)
    images = (pixels / np.float32(127.5) - 1).astype(np.float32)
    own, test = images[: _TEXTS["calibration"]], images[_TEXTS["calibration"] :]
    model = load_model(path, {"x": (1, 3, size[1], size[0])})
    wanted_texts, wanted_turns = texts[_TEXTS["calibration"] :], turned[_TEXTS["calibration"] :]
    properties = {entry.key: entry.value for entry in model.proto.metadata_props}
    alphabet = ["", *properties.get("character", "").splitlines(), " "]

    def judge(outputs: Array) -> Array | None:
        if net == "ppocr_cls":
            return outputs.argmax(1) == wanted_turns
        read = [_read_text(rows, alphabet) for rows in outputs.argmax(2)]
        return np.array([one == other for one, other in zip(read, wanted_texts, strict=True)])

    guess = max(wanted_turns.mean(), 1 - wanted_turns.mean()) if net == "ppocr_cls" else 0.0
    return Subject(net, "", 0, model, {"own": own}, test, judge, float(guess), samples=128)


def _make_texts(count: int) -> Iterator[str]:
    """Two words and a number, none twice."""
    rng, seen, vocabulary = np.random.default_rng(0), set[str](), _WORDS.split()
    while len(seen) < count:
        words = rng.choice(vocabulary, 2)
        text = f"{words[0].title()} {words[1]} {rng.integers(10, 1000)}"
        if text not in seen:
            seen.add(text)
            yield text


def _render(text: str, size: tuple[int, int]) -> Image.Image:
    """Dark text on a light ground, as large as fits."""
    rng = np.random.default_rng(len(text) + ord(text[0]) * 1000 + ord(text[-1]))
    ground = Image.new("RGB", size, tuple(int(v) for v in rng.integers(200, 256, 3)))
    font_size = 34.0
    while ImageFont.load_default(font_size).getlength(text) > size[0] - 8:
        font_size -= 1
    ink = tuple(int(v) for v in rng.integers(0, 90, 3))
    font = ImageFont.load_default(font_size)
    ImageDraw.Draw(ground).text((4, size[1] // 2), text, ink, font, anchor="lm")
    return ground


def _read_text(best: Array, alphabet: Sequence[str]) -> str:
    """Collapse repetitions, leave out blanks (connectionist temporal classification) and space around the text."""
    is_new = np.concatenate(([True], best[1:] != best[:-1]))
    return "".join(alphabet[index] for index in best[is_new]).strip()
