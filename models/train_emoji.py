"""Train the emoji classifier that `srr-onnx demo` prunes, and write it as ONNX with its test images.

Reads the emoji data file; makes a model, labelled samples of the test and training images, and a record of how they
came about.
The test emoji are looked at once, after training: choose hyper-parameters by the validation accuracy only.

    python models/train_emoji.py --data emoji_free32.npz
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import nets
import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
OPSET = 17
# Fixed apart from `--seed`, so that every run is judged on the same validation emoji.
SPLIT_SEED = 20
VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2
MAX_SAMPLE_BYTES = 2_000_000
TRAIN_SAMPLE = 1_024
EVALUATION_BATCH = 256

PREPROCESSING = {
    "layout": "NCHW",
    "color": "RGB",
    "size": [32, 32],
    "scale": 1 / 255,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
    "background": "white",
}


@dataclass(frozen=True)
class TrainingOptions:
    """Hyper-parameters of one run; ranges of the augmentation are half-widths around "unchanged"."""

    epochs: int = 40
    batch_size: int = 64
    peak_learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    max_shift_pixels: float = 3.0
    max_scale_change: float = 0.15
    max_rotation_degrees: float = 12.0
    max_hue_degrees: float = 15.0
    max_saturation_change: float = 0.4
    max_contrast_change: float = 0.2


@dataclass(frozen=True)
class LabeledImages:
    """Images and class indices.

    Attributes:
        x: uint8 pixels, `(S, 3, 32, 32)`, RGB on white.
        y: int64 class indices, `(S,)`.
        vendor: int8 index of the emoji designer, `(S,)`: 0 Noto, 1 Twemoji, 2 OpenMoji.
    """

    x: np.ndarray
    y: np.ndarray
    vendor: np.ndarray

    def __len__(self) -> int:
        """Count the images."""
        return len(self.y)

    def take(self, chosen: np.ndarray) -> LabeledImages:
        """Return the images at `chosen`, a bool array or an index array."""
        return LabeledImages(self.x[chosen], self.y[chosen], self.vendor[chosen])


@dataclass(frozen=True)
class EmojiData:
    """The emoji without skin variants, split by emoji (all drawings of one emoji are in one part) or by image."""

    train: LabeledImages
    validation: LabeledImages
    test: LabeledImages
    classes: list[str]
    num_dropped: int


def load_emoji(path: Path, split: str = "emoji") -> EmojiData:
    """Load the emoji file and split it into training, validation and test images.

    Skin variants are left out: with them "People & Body" is 60 % of the images. Images that are equal, pixel
    by pixel, to a test or validation image (France and Saint Martin share a flag) are not trained on.

    Args:
        path: An `.npz` file with `x`, `y`, `vendor`, `base`, `skin`, `is_test` and `classes`.
        split: "emoji": the test emoji are unseen, by any vendor. "image": drawn at random, so that another vendor's
            drawing of a test emoji may be among the training images.

    Returns:
        The three parts, the class names, and the number of images dropped as duplicates.
    """
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    is_plain, is_test, emoji_id = ~arrays["skin"], arrays["is_test"], arrays["base"]
    if split == "image":
        is_test = np.random.default_rng(SPLIT_SEED + 1).random(len(is_plain)) < TEST_FRACTION
        emoji_id = np.arange(len(is_plain))
    images = LabeledImages(arrays["x"], arrays["y"].astype(np.int64), arrays["vendor"])

    train_ids = np.unique(emoji_id[is_plain & ~is_test])
    rng = np.random.default_rng(SPLIT_SEED)
    validation_ids = rng.choice(train_ids, round(VALIDATION_FRACTION * len(train_ids)), replace=False)
    is_validation = np.isin(emoji_id, validation_ids)

    test = images.take(is_plain & is_test)
    validation = images.take(is_plain & ~is_test & is_validation)
    train = images.take(is_plain & ~is_test & ~is_validation)
    unique_validation = drop_known(validation, [test])
    unique_train = drop_known(train, [test, validation])
    num_dropped = len(train) - len(unique_train) + len(validation) - len(unique_validation)
    return EmojiData(unique_train, unique_validation, test, arrays["classes"].tolist(), num_dropped)


def drop_known(images: LabeledImages, others: list[LabeledImages]) -> LabeledImages:
    """Return the images whose pixels are in none of the other parts."""
    known = {pixels.tobytes() for part in others for pixels in part.x}
    return images.take(np.array([pixels.tobytes() not in known for pixels in images.x]))


def to_unit_floats(x: np.ndarray) -> torch.Tensor:
    """Turn uint8 pixels into the network's input: float32 in `[0, 1]`, nothing subtracted."""
    return torch.from_numpy(x).float().div_(255)


class Augmenter:
    """Random views of an emoji: mirrored, moved, scaled, turned, and with other inks.

    All changes are made on the ink (white minus image), so that the background stays white and
    what is moved in from outside is white too.
    """

    def __init__(self, options: TrainingOptions, generator: torch.Generator) -> None:
        """Keep the ranges and the only source of randomness."""
        self._options = options
        self._generator = generator

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return a changed copy of images `(N, 3, H, W)` with values in `[0, 1]`."""
        ink = 1 - image
        grid = functional.affine_grid(
            self._make_positions(len(ink), ink.shape[-1]), list(ink.shape), align_corners=False
        )
        moved = functional.grid_sample(ink, grid, padding_mode="zeros", align_corners=False)
        recolored = torch.einsum("noi,nihw->nohw", self._make_colors(len(ink)), moved)
        return 1 - recolored.clamp_(0, 1)

    def _draw(self, count: int, half_width: float) -> torch.Tensor:
        """Draw `count` numbers, uniform in `[-half_width, half_width]`."""
        return (torch.rand(count, generator=self._generator) * 2 - 1) * half_width

    def _make_positions(self, count: int, size: int) -> torch.Tensor:
        """Make one matrix per image that maps output to input positions, `(N, 2, 3)`."""
        options = self._options
        angle = self._draw(count, math.radians(options.max_rotation_degrees))
        zoom = 1 + self._draw(count, options.max_scale_change)
        mirror = torch.where(self._draw(count, 1.0) < 0, -1.0, 1.0)
        # Positions run from -1 to 1 over the image, two units for `size` pixels.
        shift = self._draw(2 * count, 2 * options.max_shift_pixels / size).reshape(2, count)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        rows = [mirror * cos, -mirror * sin, shift[0], sin, cos, shift[1]]
        return torch.stack(rows, dim=1).reshape(count, 2, 3)

    def _make_colors(self, count: int) -> torch.Tensor:
        """Make one ink-mixing matrix per image, `(N, 3, 3)`: hue turn x saturation x contrast."""
        options = self._options
        angle = self._draw(count, math.radians(options.max_hue_degrees))[:, None, None]
        saturation = 1 + self._draw(count, options.max_saturation_change)[:, None, None]
        contrast = 1 + self._draw(count, options.max_contrast_change)[:, None, None]
        # Rodrigues' rotation about the grey axis; it commutes with the projection on that axis, `grey`,
        # and only its part off the axis is stretched by the saturation.
        identity, grey = torch.eye(3), torch.full((3, 3), 1 / 3)
        cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
        off_axis = torch.cos(angle) * (identity - grey) + torch.sin(angle) * cross
        return contrast * (grey + saturation * off_axis)


def iterate_batches(
    images: LabeledImages, batch_size: int, augment: Augmenter, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield one epoch of shuffled, augmented batches; a short last batch is left out."""
    order = torch.randperm(len(images), generator=generator).numpy()
    for start in range(0, len(images) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        yield augment(to_unit_floats(images.x[chosen])), torch.from_numpy(images.y[chosen])


def train_net(net: nn.Module, data: EmojiData, options: TrainingOptions, seed: int) -> None:
    """Train `net` in place with SGD and a one-cycle learning rate.

    The last state is kept, whatever it scores: picking the best epoch would flatter the validation accuracy.

    Source:
        Smith and Topin, "Super-Convergence", 2018, arXiv:1708.07120 (one cycle).
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
        arXiv:1512.00567, sec. 7 (label smoothing).
    """
    generator = torch.Generator().manual_seed(seed)
    augment = Augmenter(options, generator)
    # Scales, shifts and biases are not decayed: few as they are, they do not overfit.
    decayed = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in net.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=options.peak_learning_rate,
        momentum=options.momentum,
        nesterov=True,
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=options.peak_learning_rate,
        total_steps=options.epochs * (len(data.train) // options.batch_size),
        pct_start=0.25,
        cycle_momentum=False,
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
    net.to(memory_format=torch.channels_last)  # takes a fifth less time on a CPU
    for epoch in range(1, options.epochs + 1):
        net.train()
        started, losses = time.process_time(), []
        for image, label in iterate_batches(data.train, options.batch_size, augment, generator):
            loss = loss_function(net(image.contiguous(memory_format=torch.channels_last)), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        seconds = time.process_time() - started
        validation = measure_accuracy(predict_with_torch(net, data.validation.x), data.validation.y)
        click.echo(
            f"epoch {epoch:3d}  loss {np.mean(losses):.4f}  validation {validation:.4f}  {seconds:.1f} s of CPU",
            err=True,
        )
    net.to(memory_format=torch.contiguous_format)


def split_batches(x: np.ndarray) -> Iterator[torch.Tensor]:
    """Yield uint8 images `(S, 3, H, W)` as inputs of at most `EVALUATION_BATCH` images, in order."""
    for start in range(0, len(x), EVALUATION_BATCH):
        yield to_unit_floats(x[start : start + EVALUATION_BATCH])


def predict_with_torch(net: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return logits `(S, classes)` for uint8 images `(S, 3, H, W)`."""
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(image) for image in split_batches(x)]).numpy()


def predict_with_onnxruntime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Return logits `(S, classes)` for uint8 images `(S, 3, H, W)`."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batches = [session.run(["logits"], {"image": image.numpy()})[0] for image in split_batches(x)]
    return np.concatenate(batches)


def measure_accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    """Return the share of images, in `[0, 1]`, whose largest logit `(S, classes)` is at the label `(S,)`."""
    return float((logits.argmax(axis=1) == y).mean())


def export_net(net: nn.Module, classes: list[str], summary: str, is_folded: bool = False) -> onnx.ModelProto:
    """Export a trained net with input `image` and output `logits`; the batch size stays open.

    Args:
        net: Trained net; put into evaluation mode.
        classes: Class names, stored as a JSON list in the metadata under "classes".
        summary: Stored as the model's doc_string.
        is_folded: Merge every BatchNormalization into its convolution. By default they stay, in inference
            form, since pruning criteria read their scales.

    Returns:
        A checked model of opset `OPSET`.
    """
    buffer = io.BytesIO()
    modes = torch.onnx.TrainingMode
    net.eval()
    torch.onnx.export(
        net,
        (torch.zeros(1, 3, 32, 32),),
        buffer,
        dynamo=False,  # only this exporter heeds `training`, which decides about folding
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        # EVAL lets the exporter fold; PRESERVE keeps the nodes, and the net is in evaluation mode already.
        training=modes.EVAL if is_folded else modes.PRESERVE,
        do_constant_folding=is_folded,
    )
    model = onnx.load_from_string(buffer.getvalue())
    unshare_initializers(model.graph)
    model.doc_string = summary
    onnx.helper.set_model_props(
        model, {"classes": json.dumps(classes), "preprocessing": json.dumps(PREPROCESSING, sort_keys=True)}
    )
    onnx.checker.check_model(model, full_check=True)
    check_norms(model, net, is_folded)
    return model


def unshare_initializers(graph: onnx.GraphProto) -> None:
    """Give every parameter its own initializer, in place.

    The exporter stores equal tensors once and makes Identity nodes of the others. Here these are the biases
    of the two normalizations before an addition with a projection: they start equal and have equal gradients.
    """
    initializers = {initializer.name: initializer for initializer in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in initializers]:
        copy = graph.initializer.add()
        copy.CopyFrom(initializers[node.input[0]])
        copy.name = node.output[0]
        graph.node.remove(node)


def check_norms(model: onnx.ModelProto, net: nn.Module, is_folded: bool) -> None:
    """Raise if the export has not exactly the BatchNormalization nodes it should have, in inference form."""
    nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    num_expected = 0 if is_folded else sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    is_training = any(a.name == "training_mode" and a.i for node in nodes for a in node.attribute)
    if len(nodes) != num_expected or is_training:
        raise click.ClickException(
            f"the exporter wrote {len(nodes)} BatchNormalization nodes (training form: {is_training}), "
            f"expected {num_expected} in inference form; use the torch version named in the record"
        )


def write_sample(path: Path, images: LabeledImages, classes: list[str], most: int | None = None) -> LabeledImages:
    """Write images as a compressed `.npz` with `x`, `y`, `vendor` and `classes`.

    The order is shuffled, with a fixed seed: the data file is sorted by subject, and users may take
    the first few.

    Args:
        path: File to write.
        images: The images.
        classes: Names of the classes.
        most: So many of them are written; all by default.

    Returns:
        The images that were written, in their order.

    Raises:
        ClickException: The file is larger than what may be bundled.
    """
    sample = images.take(np.random.default_rng(SPLIT_SEED).permutation(len(images))[:most])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, x=sample.x, y=sample.y, vendor=sample.vendor, classes=np.array(classes))
    if path.stat().st_size > MAX_SAMPLE_BYTES:
        raise click.ClickException(f"{path} has {path.stat().st_size} bytes, more than {MAX_SAMPLE_BYTES}")
    return sample


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--net", "net_name", type=click.Choice(sorted(nets.NETS)), default="resnet20")
@click.option("--split", type=click.Choice(["emoji", "image"]), default="emoji")
@click.option("--epochs", default=TrainingOptions.epochs)
@click.option("--batch-size", default=TrainingOptions.batch_size)
@click.option("--learning-rate", default=TrainingOptions.peak_learning_rate, help="Peak of the cycle.")
@click.option("--seed", default=0, help="Seed of the initial weights, the order and the augmentation.")
@click.option("--threads", default=1, help="CPU threads; another number gives slightly other weights.")
@click.option("--output-dir", type=click.Path(path_type=Path), default=ROOT / "srr_onnx" / "assets")
@click.option("--record-dir", type=click.Path(path_type=Path), default=ROOT / "models")
@click.option("--folded", type=click.Path(path_type=Path), help="Also write a BN-folded export here.")
@click.option("--state-dict", type=click.Path(path_type=Path), help="Also write the torch weights here.")
@click.option("--validate-only", is_flag=True, help="Stop after training: no test accuracy, no files.")
def main(
    data: Path,
    net_name: str,
    split: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    threads: int,
    output_dir: Path,
    record_dir: Path,
    folded: Path | None,
    state_dict: Path | None,
    validate_only: bool,
) -> None:
    """Train a small classifier of emoji and write NET_emoji.onnx, emoji_test.npz and NET_emoji.json."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    options = TrainingOptions(epochs=epochs, batch_size=batch_size, peak_learning_rate=learning_rate)
    emoji = load_emoji(data, split)
    net = nets.NETS[net_name](len(emoji.classes))

    # CPU time too: a training that is stopped for a while, or shares its core, takes as long in it as any other.
    started, cpu_started = time.perf_counter(), time.process_time()
    train_net(net, emoji, options, seed)
    train_seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    if validate_only:
        return

    description = (
        f"{net_name}: {len(emoji.classes)} classes of emoji (Noto, Twemoji, OpenMoji), 32x32 on white. "
        "Input: RGB pixels divided by 255. A small test subject for pruning, not a product."
    )
    model = export_net(net, emoji.classes, description)
    model_path = output_dir / f"{net_name}_emoji.onnx"
    sample = write_sample(output_dir / "emoji_test.npz", emoji.test, emoji.classes)
    write_sample(output_dir / "emoji_train.npz", emoji.train, emoji.classes, TRAIN_SAMPLE)
    onnx.save(model, model_path)
    if folded is not None:
        folded.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(
            export_net(net, emoji.classes, f"{description} BatchNormalization folded.", is_folded=True),
            folded,
        )
    if state_dict is not None:
        state_dict.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), state_dict)

    parts = {
        "train": emoji.train,
        "validation": emoji.validation,
        "test_full": emoji.test,
        "test_bundled": sample,
    }
    accuracy = {
        name: round(measure_accuracy(predict_with_onnxruntime(model, part.x), part.y), 4)
        for name, part in parts.items()
    }
    torch_logits = predict_with_torch(net, emoji.test.x)
    onnx_logits = predict_with_onnxruntime(model, emoji.test.x)
    record = {
        "model": model_path.name,
        "sha256": hashlib.sha256(model_path.read_bytes()).hexdigest(),
        "size_bytes": model_path.stat().st_size,
        "num_params": sum(parameter.numel() for parameter in net.parameters()),
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "net": net_name,
        "seed": seed,
        "split": split,
        "split_seed": SPLIT_SEED,
        "threads": threads,
        "options": asdict(options),
        "num_images": {name: len(part) for name, part in parts.items()},
        "num_duplicates_dropped": emoji.num_dropped,
        "accuracy": accuracy,
        "accuracy_test_full_torch": round(measure_accuracy(torch_logits, emoji.test.y), 4),
        "max_logit_difference_onnx_torch": float(np.abs(torch_logits - onnx_logits).max()),
        "train_seconds": round(train_seconds, 1),
        "train_cpu_seconds": round(cpu_seconds, 1),
        "data": {"file": data.name, "sha256": hashlib.sha256(data.read_bytes()).hexdigest()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
    }
    record_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2)
    (record_dir / f"{net_name}_emoji.json").write_text(f"{text}\n", encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
