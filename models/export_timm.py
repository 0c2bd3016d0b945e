"""Export timm architectures with seeded random weights, for structure tests.

Weights and checks are those of `export_torchvision.py`; what is here is the list of nets and how they are built.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import click
import torch
from export_torchvision import FOLDER, FORMS, define_missing_operators, export_checked, parse_choice, prepare_net
from torch import nn

NETS = (
    *("ghostnet_100", "res2net50_26w_4s", "hrnet_w18_small", "cspdarknet53", "dpn68", "mixnet_s", "skresnet18"),
    *("ese_vovnet19b_dw", "resnest14d", "repvgg_a0", "mobilevit_xs", "poolformer_s12", "efficientvit_b0", "fastvit_t8"),
    *("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "levit_128s", "rexnet_100", "tresnet_m"),
    *("coatnet_nano_rw_224", "edgenext_xx_small", "convnextv2_atto", "nfnet_l0", "inception_resnet_v2", "xception41"),
    *("selecsls42b", "dla34", "gernet_s", "mobileone_s0", "lcnet_050", "tinynet_e"),
)
USED_FORMS = ("ts_folded", "dyn_folded")


def build_net(name: str) -> tuple[nn.Module, int]:
    """Build a timm net without weights, in inference mode.

    Args:
        name: A timm model name.

    Returns:
        The net with random initial weights, and the height and width of its images.
    """
    define_missing_operators()
    import timm  # it imports torchvision, which needs its operators defined

    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False).eval()
    return net, int(net.default_cfg["input_size"][-1])


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder to write to.")
@click.option("--nets", callback=parse_choice(NETS), help="Comma-separated net names.  [default: all]")
@click.option("--forms", callback=parse_choice(USED_FORMS), help="Comma-separated forms.  [default: all]")
def main(out: Path, nets: list[str], forms: list[str]) -> None:
    """Export timm nets with random weights as NET.FORM.onnx; files that exist are kept."""
    torch.set_num_threads(1)
    # The exporters announce their own deprecations and tracing choices; the checks decide.
    warnings.filterwarnings("ignore")
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in nets:
        paths = {form: out / f"{name}.{form}.onnx" for form in forms}
        missing = {form: path for form, path in paths.items() if not path.exists()}
        if not missing:
            continue
        net, size = build_net(name)
        net = prepare_net(net, size, is_shared=False)
        for form, path in missing.items():
            start = time.perf_counter()
            try:
                facts, error = export_checked(net, size, FORMS[form], ("output",), path)
            except Exception as problem:  # one net that fails must not stop the others
                failed.append(path.name)
                click.echo(f"{path.name:<48} FAILED: {type(problem).__name__}: {problem}"[:400])
                continue
            seconds = time.perf_counter() - start
            click.echo(f"{path.name:<48} {facts.num_nodes:>5} nodes, error {error:.1e}, {seconds:.1f} s")
    if failed:
        raise click.ClickException(f"{len(failed)} file(s) failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
