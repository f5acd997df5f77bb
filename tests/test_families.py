"""A second family as the test of the design: nets that no line of the pipeline names.

timm's definitions with random weights go through `quantize` (no epochs) to every target, are read
back and compared there, and computed beside the program.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgevit
from edgevit.graph import trace
from edgevit.graph.float_run import GraphNet
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from tests.npu import OWN_FORMAT
from tests.timm_compat import import_timm

CLASSES, SIZE = 10, 64
FAMILIES = ("mobilenetv3_large_100", "mobileone_s1")


def timm_net(name: str) -> nn.Module:
    """A net whose batch norms have seen images, so that no layer is dead or bursts."""
    timm = import_timm()
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=CLASSES).train()
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.normal_(norm.bias, 0, 0.2)
        norm.momentum = None  # plain averages over the one batch below
    with torch.no_grad():
        net(torch.from_numpy(pictures(32)).permute(0, 3, 1, 2).float() / 128 - 1)
    return net.eval()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, SIZE, SIZE, 3), smooth, each different."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 8, 8, 3))
    return coarse.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2).astype(np.uint8)


def labelled(count: int, seed: int) -> list[tuple[np.ndarray, int]]:
    return [(image, place % CLASSES) for place, image in enumerate(pictures(count, seed))]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_net_of_another_family_goes_all_the_way(name: str, tmp_path: Path) -> None:
    net = timm_net(name)
    sizes = {"size": SIZE, "classes": [f"class {i}" for i in range(CLASSES)]}
    train = edgevit.from_sequence(labelled(40, 1), **sizes)
    val = edgevit.from_sequence(labelled(20, 2), **sizes)
    # Labels are as random as the weights, and random nets carry noise on: what counts is that the
    # logits are the net's, which those of another program would not be.
    result = edgevit.quantize(
        net, train, val, epochs=0, calibration_images=16, max_drop=100, allow_poor_float=True
    )
    program, pixels = result.program, pictures(8, 3)
    normalised = program.info.preprocessing.normalise(pixels)
    expected = program.run(normalised).numpy()
    with torch.no_grad():
        floats = net(normalised).numpy()
    assert _alike(expected, floats) > 0.5
    for target in OWN_FORMAT:
        artifact = program.compile(target, tmp_path / target)
        assert artifact.manifest.audit.exact
        found = load_target(target).open_runner(load_artifact(tmp_path / target)).scores(pixels)
        # LiteRT's HARD_SWISH rounds in its own way, as the target says; all else is exact.
        rounding = {type(n) for n in program.graph().nodes} & set(
            load_target(target).tolerance_steps
        )
        if target == "tflite" and not rounding:
            assert np.array_equal(found, expected)
        # TensorRT leaves pairs out and Core ML computes in float16: they round elsewhere.
        assert _alike(found, expected) > 0.5, target


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two sets of logits."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_and_branches_are_folded_without_a_fuse_of_its_own(name: str) -> None:
    net = timm_net(name)
    graph = trace(net, (3, SIZE, SIZE))
    assert "channel_affine" not in {node.kind for node in graph.nodes}
    images = torch.from_numpy(pictures(4, 5)).permute(0, 3, 1, 2).float() / 128 - 1
    with torch.no_grad():
        expected, found = net(images), GraphNet(graph)(images)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
