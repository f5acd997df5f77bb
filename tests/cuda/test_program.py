"""`Program.run` on a GPU: the CPU's integers, whatever torch is allowed to round there."""

from __future__ import annotations

import pytest
import torch

from edgevit.graph.execute import Executor
from edgevit.kernels.exact import TorchKernels
from edgevit.ops import Linear, Quantizer
from edgevit.program import Program
from tests.ops.test_exact import CASES, GRIDS, Case, grids, values, weighted
from tests.programs import make_program, seeded_images

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(params=["highest", "high", "medium"], autouse=True)
def precision(request: pytest.FixtureRequest) -> None:
    """What float32 products may be rounded to (TF32, bfloat16): not the program's."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("each", CASES, ids=str)
def test_an_operation_is_the_cpus(each: Case, grid: str) -> None:
    quantizers, output = grids(each.node, grid)
    inputs = [torch.from_numpy(x) for x in values(each.shapes, 0)]
    expected = each.node.by_definition(quantizers, output)(*inputs)
    on_gpu = [x.cuda() for x in inputs]
    kernels = TorchKernels("cuda")
    for step in (
        each.node.integer(quantizers, output, kernels),
        each.node.by_definition(quantizers, output),
    ):
        found = step(*on_gpu)
        assert found.device.type == "cuda" and torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("activation", ["gelu", "quick-gelu", "hard-swish"])
@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_every_tensor_is_the_cpus(profile: str, activation: str) -> None:
    program = make_program(profile=profile, activation=activation)
    images = seeded_images(37, 64, seed=3)
    expected = dict(Executor(program.graph(), by_definition=True).tensors(images))
    for name, value in program.tensors(images.cuda()):
        assert torch.equal(value.cpu(), expected[name]), name


def test_logits_come_back_on_the_gpu_and_depend_on_no_batch(tmp_path) -> None:
    path = make_program().save(tmp_path / "m.evq")
    program, images = Program.load(path), seeded_images(300, 64).cuda()
    together = program.run(images)
    assert together.is_cuda
    assert torch.equal(together.cpu(), program.run(images.cpu()))
    assert torch.equal(torch.cat([program.run(part) for part in images.split(7)]), together)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_each_gpu_has_its_own_weights() -> None:
    program, images = make_program(), seeded_images(5, 64)
    expected = program.run(images)
    for index in (1, 0):
        found = program.run(images.to(f"cuda:{index}"))
        assert found.device.index == index and torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("images", [1, 16, 17, 100])
@pytest.mark.parametrize("sizes", [(7, 40), (10, 13), (8, 8), (1, 1)])
def test_matrices_of_any_size_are_multiplied(images: int, sizes: tuple[int, int]) -> None:
    """cuBLAS itself takes int8 in multiples of 8 and over 16 rows only."""
    node = weighted(Linear, sizes)
    source, output = Quantizer(0.05, -14), Quantizer(0.5, 3)
    x = torch.randint(-128, 128, (images, sizes[1]), dtype=torch.int8)
    found = node.integer([source], output, TorchKernels("cuda"))(x.cuda())
    assert torch.equal(found.cpu(), node.by_definition([source], output)(x))
