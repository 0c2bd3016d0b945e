"""The small nets that the recipes train are the architectures they are named after."""

from __future__ import annotations

import pytest
from builders import load_recipe

torch = pytest.importorskip("torch")
nn = torch.nn


def make(name):
    torch.manual_seed(0)
    return load_recipe("nets").NETS[name](9).eval()


@pytest.mark.parametrize(
    ("name", "num_convolutions", "num_params"),
    # ResNets: two convolutions a block, three stages, a stem and two projections.
    [("resnet20", 21, 272_409), ("resnet56", 57, 855_705), ("vgg7_bn", 7, 1_738_953), ("vgg16_bn", 13, 3_684_585)],
)
def test_nets_have_their_number_of_layers_and_parameters(name, num_convolutions, num_params):
    net = make(name)
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == num_convolutions
    assert sum(parameter.numel() for parameter in net.parameters()) == num_params


@pytest.mark.parametrize("name", ["resnet56", "vgg16_bn"])
def test_images_become_logits_that_depend_on_them(name):
    with torch.inference_mode():
        logits = make(name)(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 9)
    assert torch.isfinite(logits).all()
    assert (logits[0] - logits[1]).abs().max() > 1e-4
