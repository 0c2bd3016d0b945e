"""Export torchvision architectures with seeded random weights, for structure tests.

Reads no weights from anywhere: builds each net, randomizes it, writes one ONNX file per form.
Every file written has run in onnxruntime and agreed with torch; a file that fails is not kept.
"""

from __future__ import annotations

import itertools
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import onnx_ir.passes.common
import onnxruntime
import torch
from torch import nn

TOLERANCE = 1e-3  # largest |onnx - torch| relative to the largest |torch|

# Small and structurally rich nets first, so that an interrupted run still leaves the useful ones.
NETS = (
    "resnet18",
    "mobilenet_v2",
    "resnet50",
    "densenet121",
    "shufflenet_v2_x0_5",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "regnet_y_400mf",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "resnext50_32x4d",
    "convnext_tiny",
    "fcn_resnet50",
    "vgg16_bn",
    "alexnet",
    "wide_resnet50_2",
    "vgg11_bn",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)
INPUT_SIZES = {"inception_v3": 299}
BUILD_OPTIONS: dict[str, dict[str, object]] = {
    # Their own initialization takes long and is overwritten here.
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    # The auxiliary head makes this the one net with two outputs.
    "fcn_resnet50": {"weights_backbone": None, "aux_loss": True},
    "deeplabv3_mobilenet_v3_large": {"weights_backbone": None, "aux_loss": True},
    "lraspp_mobilenet_v3_large": {"weights_backbone": None},
}
OUTPUT_NAMES = {
    "fcn_resnet50": ("out", "aux"),
    "deeplabv3_mobilenet_v3_large": ("out", "aux"),
    "lraspp_mobilenet_v3_large": ("out",),
}


@dataclass(frozen=True)
class Form:
    """One way to export a net.

    Attributes:
        is_dynamo: Use the `torch.export` based exporter; else the TorchScript one.
        is_folded: Let the exporter fold batch normalization into convolutions.
        is_shared: Give biases and normalizations their initial, equal values, so that exporters
            merge them into shared initializers; else all are distinct random values.
        has_dynamic_batch: Leave the batch axis symbolic, named `batch`.
    """

    is_dynamo: bool
    is_folded: bool
    is_shared: bool = False
    has_dynamic_batch: bool = False


FORMS = {
    "ts_folded": Form(is_dynamo=False, is_folded=True),
    "ts_kept": Form(is_dynamo=False, is_folded=False),
    "dyn_folded": Form(is_dynamo=True, is_folded=True),
    "dyn_kept": Form(is_dynamo=True, is_folded=False),
    "ts_shared": Form(is_dynamo=False, is_folded=False, is_shared=True),
    "dyn_shared": Form(is_dynamo=True, is_folded=False, is_shared=True),
    "ts_folded_shared": Form(is_dynamo=False, is_folded=True, is_shared=True),
    "ts_dynbatch": Form(is_dynamo=False, is_folded=True, has_dynamic_batch=True),
}
NORMALIZATIONS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class TupleOutputs(nn.Module):
    """Turn a net that returns a dict into one that returns a tuple, which both exporters can name.

    Args:
        net: Net whose forward returns a dict of tensors.
        names: Keys to return, in order.
    """

    def __init__(self, net: nn.Module, names: tuple[str, ...]) -> None:
        """Wrap the net; nothing is copied."""
        super().__init__()
        self.net = net
        self.names = names

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the net on `(N, C, H, W)` and return the named outputs."""
        outputs = self.net(image)
        return tuple(outputs[name] for name in self.names)


def build_net(name: str) -> nn.Module:
    """Build a torchvision net without weights, in inference mode.

    Args:
        name: A torchvision builder name, such as `resnet18`.

    Returns:
        The net; random initial weights from torch's global generator.
    """
    define_missing_operators()
    from torchvision import models  # only importable once its operators are defined

    options: dict[str, object] = {"weights": None} | BUILD_OPTIONS.get(name, {})
    net = models.get_model(name, **options)
    if name in OUTPUT_NAMES:
        net = TupleOutputs(net, OUTPUT_NAMES[name])
    return net.eval()


def define_missing_operators() -> None:
    """Let torchvision import where its compiled extension does not load.

    The extension is built against one exact torch; beside another one (the CPU build, say) the
    import fails because three detection operators have no schema. Nets do not call them.
    """
    try:
        import torchvision  # noqa: F401  (imported for the attempt)
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define(
            "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width,"
            " int sampling_ratio, bool aligned) -> Tensor"
        )
        _KEPT_LIBRARIES.append(library)


_KEPT_LIBRARIES: list[torch.library.Library] = []  # a collected Library takes its schemas with it


def randomize(net: nn.Module, seed: int) -> None:
    """Give biases, normalizations and layer scales distinct random values, in place.

    Without this, exporters merge the equal tensors of a fresh net, and an edit of a wrong but equal
    tensor would go unnoticed.

    Args:
        net: Net to change.
        seed: Seed of the values.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)

    def normal(tensor: torch.Tensor) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, NORMALIZATIONS):
                uniform(module.weight)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                uniform(module.running_var)
                normal(module.running_mean)
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                normal(parameter)
            if name.endswith("layer_scale"):  # ConvNeXt starts at 1e-6, which would hide every block
                uniform(parameter)


def equalize(net: nn.Module) -> None:
    """Give biases, normalizations and layer scales their plain initial values, in place.

    Args:
        net: Net to change: biases and means become 0, scales and variances 1.
    """
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, NORMALIZATIONS):
                module.weight.fill_(1)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            if name.endswith("layer_scale"):
                parameter.fill_(1)


def scale_weights(net: nn.Module, images: torch.Tensor) -> None:
    """Scale each convolution and linear weight so that its outputs have unit variance, in place.

    Random nets with arbitrary normalization statistics otherwise vanish, overflow or saturate.

    Args:
        net: Net to change.
        images: Calibration images, `(N, C, H, W)`; the variance is taken over all their values.

    Source:
        Mishkin and Matas, "All you need is a good init", ICLR 2016, arXiv:1511.06422. Deviates:
        one pass, and no orthogonal start.
    """

    def rescale(module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        bias = module.bias
        shape = (1, -1, 1, 1) if isinstance(module, nn.Conv2d) else (-1,)
        linear = output if bias is None else output - bias.view(shape)
        factor = 1.0 / linear.std().clamp_min(1e-12)
        module.weight.mul_(factor)
        return linear * factor if bias is None else linear * factor + bias.view(shape)

    hooks = [m.register_forward_hook(rescale) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()


def make_images(count: int, size: int, seed: int) -> torch.Tensor:
    """Make smooth random images that differ in more than noise, which pooling would average away.

    Args:
        count: Number of images.
        size: Height and width in pixels.
        seed: Seed of the values.

    Returns:
        Float32 `(count, 3, size, size)`, about zero mean and unit variance.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((count, 3, size, size), generator=generator) * 0.3
    for grid in (1, 4, 16):
        coarse = torch.randn((count, 3, grid, grid), generator=generator)
        images += 0.6 * nn.functional.interpolate(coarse, (size, size), mode="nearest")
    return images


def make_net(name: str, is_shared: bool) -> nn.Module:
    """Build a net with reproducible weights that keep its outputs finite and dependent on the input.

    Args:
        name: A torchvision builder name.
        is_shared: Leave biases and normalizations equal (see `Form`).

    Returns:
        The net in inference mode.
    """
    torch.manual_seed(0)
    return prepare_net(build_net(name), INPUT_SIZES.get(name, 224), is_shared)


def prepare_net(net: nn.Module, size: int, is_shared: bool) -> nn.Module:
    """Give a net weights that keep its outputs finite and dependent on the input.

    Args:
        net: Net with random initial weights; changed in place.
        size: Height and width of its images.
        is_shared: Leave biases and normalizations equal (see `Form`).

    Returns:
        The net, without gradients.
    """
    if is_shared:
        equalize(net)
    else:
        randomize(net, seed=1)
    scale_weights(net, make_images(4, size, seed=2))
    return net.requires_grad_(False)


def run_torch(net: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    """Run a net and return all its outputs as arrays."""
    with torch.no_grad():
        outputs = net(images)
    return [t.numpy() for t in (outputs if isinstance(outputs, tuple) else (outputs,))]


def run_onnx(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model file in onnxruntime on one thread and return all its outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # unused initializers are no news here
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def check_outputs(outputs: list[np.ndarray]) -> None:
    """Check that a net's outputs can reveal a wrong edit.

    Args:
        outputs: Arrays whose first axis holds at least two different images.

    Raises:
        ValueError: An output is not finite, is constant, or does not depend on the image.
    """
    for array in outputs:
        if not np.isfinite(array).all():
            raise ValueError("an output is not finite")
        if array[0].std() == 0:
            raise ValueError("an output is constant")
        difference = np.abs(array[0] - array[1]).max() / np.abs(array).max()
        if difference < 1e-3:
            raise ValueError(f"an output hardly depends on the image: relative change {difference:.1e}")


def check_agreement(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """Compare the outputs of the exported model with those of the net.

    Args:
        expected: Outputs of the net.
        actual: Outputs of the exported model.

    Returns:
        Largest difference, relative to the largest expected value of the same output.

    Raises:
        ValueError: Number or shapes of outputs differ, or the difference exceeds `TOLERANCE`.
    """
    if [a.shape for a in expected] != [a.shape for a in actual]:
        raise ValueError(f"outputs {[a.shape for a in actual]}, expected {[a.shape for a in expected]}")
    error = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(expected, actual, strict=True))
    if not error <= TOLERANCE:
        raise ValueError(f"onnxruntime differs from torch by {error:.1e}, relative")
    return error


def export_net(
    net: nn.Module,
    images: torch.Tensor,
    form: Form,
    output_names: tuple[str, ...],
    path: Path,
) -> None:
    """Export a net in one form to one file without external data.

    Args:
        net: Net in inference mode.
        images: Example input, `(1, C, H, W)`.
        form: How to export.
        output_names: One name per output.
        path: File to write.
    """
    names = {"input_names": ["input"], "output_names": list(output_names)}
    if form.is_dynamo:
        options = {"dynamo": True, "optimize": form.is_folded, "verbose": False}
        program = torch.onnx.export(net, (images,), **options, **names)
        if form.is_shared:
            # The exporter merges equal initializers only in the optimization that also folds, and
            # only small ones; this is its own pass, alone and without the limit.
            merge_equal = onnx_ir.passes.common.DeduplicateInitializersPass(size_limit=sys.maxsize)
            merge_equal(program.model)
        program.save(str(path), external_data=False)
        return
    # Under PRESERVE the exporter leaves out its fusion passes but still writes inference-mode nodes,
    # because the net itself is in inference mode.
    mode = torch.onnx.TrainingMode.EVAL if form.is_folded else torch.onnx.TrainingMode.PRESERVE
    dynamic = {"dynamic_axes": {n: {0: "batch"} for n in ("input", *output_names)}}
    torch.onnx.export(
        net,
        (images,),
        str(path),
        dynamo=False,
        opset_version=17,
        training=mode,
        **names,
        **(dynamic if form.has_dynamic_batch else {}),
    )


@dataclass(frozen=True)
class FileFacts:
    """What the table shows of one exported file."""

    num_nodes: int
    num_batch_norms: int
    num_initializers: int
    num_shared: int
    size_bytes: int


def describe_file(path: Path) -> FileFacts:
    """Count what matters for shared-initializer tests.

    Args:
        path: Model file.

    Returns:
        Counts; `num_shared` are initializers whose values more than one node input reads, through
        Identity nodes included.
    """
    graph = onnx.load(path).graph
    initializers = {tensor.name for tensor in graph.initializer}
    origin = {name: name for name in initializers}
    reads: Counter[str] = Counter()
    for node in graph.node:  # nodes are in topological order
        if node.op_type == "Identity" and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
            continue
        if node.op_type == "Shape":
            continue
        # The second input of CastLike gives its type, not its values.
        values = node.input[:1] if node.op_type == "CastLike" else node.input
        reads.update(origin[name] for name in values if name in origin)
    return FileFacts(
        num_nodes=len(graph.node),
        num_batch_norms=sum(node.op_type == "BatchNormalization" for node in graph.node),
        num_initializers=len(initializers),
        num_shared=sum(count > 1 for count in reads.values()),
        size_bytes=path.stat().st_size,
    )


def export_checked(
    net: nn.Module, size: int, form: Form, output_names: tuple[str, ...], path: Path
) -> tuple[FileFacts, float]:
    """Export one file, check it, and only then give it its final name.

    Args:
        net: The net to export.
        size: Height and width of its images.
        form: How to export it.
        output_names: One name per output.
        path: Final place of the file.

    Returns:
        Facts about the file, and its relative difference from torch.

    Raises:
        ValueError: The file does not do what the net does, or lacks what its form promises.
    """
    images = make_images(2, size, seed=3)
    expected = run_torch(net, images)
    check_outputs(expected)
    # Not ending in .onnx: a glob over the folder must never meet an unchecked file.
    partial = path.with_suffix(".partial")
    try:
        export_net(net, images[:1], form, output_names, partial)
        count = 2 if form.has_dynamic_batch else 1
        expected = run_torch(net, images[:count])
        error = check_agreement(expected, run_onnx(partial, {"input": images[:count].numpy()}))
        facts = describe_file(partial)
        has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
        if has_batch_norm and not form.is_folded and facts.num_batch_norms == 0:
            raise ValueError("the exporter folded every BatchNormalization")
        if form.is_shared and facts.num_shared == 0:
            raise ValueError("the exporter shared no initializer")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return facts, error


def find_jobs(nets: list[str], forms: list[str], out: Path) -> Iterator[tuple[str, bool, list[str]]]:
    """Yield (net, is_shared, form names) still to be exported, so that each net is built twice at most."""
    for name, is_shared in itertools.product(nets, (False, True)):
        wanted = [form_name for form_name in forms if FORMS[form_name].is_shared == is_shared]
        if missing := [form_name for form_name in wanted if not (out / f"{name}.{form_name}.onnx").exists()]:
            yield name, is_shared, missing


def parse_choice(
    allowed: tuple[str, ...],
) -> Callable[[click.Context, click.Parameter, str | None], list[str]]:
    """Make a click callback that splits a comma-separated list and checks its entries."""

    def parse(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
        chosen = value.split(",") if value else list(allowed)
        if unknown := [entry for entry in chosen if entry not in allowed]:
            raise click.BadParameter(f"unknown: {', '.join(unknown)}; choose from {', '.join(allowed)}")
        return chosen

    return parse


FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder to write to.")
@click.option("--nets", callback=parse_choice(NETS), help="Comma-separated net names.  [default: all]")
@click.option("--forms", callback=parse_choice(tuple(FORMS)), help="Comma-separated forms.  [default: all]")
def main(out: Path, nets: list[str], forms: list[str]) -> None:
    """Export torchvision nets with random weights as NET.FORM.onnx; files that exist are kept."""
    torch.set_num_threads(1)
    # The exporters announce their own deprecations and tracing choices; the checks below decide.
    warnings.filterwarnings("ignore")
    out.mkdir(parents=True, exist_ok=True)
    click.echo(f"{'file':<42} nodes   bn inits shared     MB    error seconds")
    failed = []
    for name, is_shared, form_names in find_jobs(nets, forms, out):
        net = make_net(name, is_shared)
        for form_name in form_names:
            path = out / f"{name}.{form_name}.onnx"
            start = time.perf_counter()
            try:
                names = OUTPUT_NAMES.get(name, ("output",))
                facts, error = export_checked(net, INPUT_SIZES.get(name, 224), FORMS[form_name], names, path)
            except Exception as problem:  # one net that fails must not stop the other hundred
                failed.append(path.name)
                click.echo(f"{path.name:<42} FAILED: {type(problem).__name__}: {problem}"[:400])
                click.echo(traceback.format_exc(), err=True)
                continue
            seconds = time.perf_counter() - start
            click.echo(
                f"{path.name:<42} {facts.num_nodes:>5} {facts.num_batch_norms:>4} {facts.num_initializers:>5}"
                f" {facts.num_shared:>6} {facts.size_bytes / 1e6:>6.1f} {error:>8.1e} {seconds:>7.1f}"
            )
    if failed:
        raise click.ClickException(f"{len(failed)} file(s) failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
