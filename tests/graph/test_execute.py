"""The executor, on random nets: it is the oracle's own arithmetic, whatever else runs beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.graph.execute import Executor
from edgevit.ops import BY_KIND, Quantizer
from tests.ops import oracle
from tests.program.exported import check_exported
from tests.programs import seeded_images
from tests.random_graphs import IMAGE_SIZE, random_graph, random_program

CASES = [(seed, profile) for seed in range(8) for profile in ("portable", "asymmetric")]


def graph_of(seed: int, profile: str = "portable") -> Graph:
    return random_program(seed, profile, operations=10, softmax=seed % 3 == 0).graph()


def test_the_random_nets_have_every_operation() -> None:
    graphs = [random_graph(seed, 10, softmax=seed % 3 == 0) for seed in range(40)]
    kinds = {node.kind for graph in graphs for node in graph.nodes}
    assert kinds == set(BY_KIND)


@pytest.mark.parametrize(("seed", "profile"), CASES)
def test_every_tensor_is_the_oracles(seed: int, profile: str) -> None:
    graph, images = graph_of(seed, profile), seeded_images(3, IMAGE_SIZE, seed)
    expected = oracle.run(graph, images.numpy())
    executor = Executor(graph)
    seen = dict(executor.tensors(images))
    assert list(seen) == graph.owners()
    for name, value in seen.items():
        assert value.dtype == torch.int8 and value.shape[1:] == graph.shape(name)[1:]
        assert np.array_equal(value.numpy(), expected[name]), name
    last = graph.output_name
    quantizer = graph.quantizer(last)
    real = (expected[last].astype(np.float32) - quantizer.zero_point) * np.float32(quantizer.scale)
    assert np.array_equal(executor(images)[last].numpy(), real)


@pytest.mark.parametrize(("seed", "profile"), CASES)
def test_one_operation_can_be_run_alone(seed: int, profile: str) -> None:
    graph, images = graph_of(seed, profile), seeded_images(2, IMAGE_SIZE, seed)
    expected = {name: torch.from_numpy(v) for name, v in oracle.run(graph, images.numpy()).items()}
    executor = Executor(graph)
    for node in graph.nodes:
        found = executor.step(node, [expected[name] for name in node.inputs])
        assert torch.equal(found, expected[node.name]), node.name


@pytest.mark.parametrize("seed", range(4))
def test_an_image_depends_on_nothing_else(seed: int) -> None:
    graph, images = graph_of(seed), seeded_images(9, IMAGE_SIZE, seed)
    executor = Executor(graph)
    together = executor(images)[graph.output_name]
    alone = [executor(image[None])[graph.output_name] for image in images]
    assert torch.equal(torch.cat(alone), together)
    layout = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(executor(layout)[graph.output_name], together)


@pytest.mark.parametrize(("seed", "profile"), CASES)
def test_the_exported_graph_is_the_program(seed: int, profile: str) -> None:
    check_exported(graph_of(seed, profile), seeded_images(3, IMAGE_SIZE, seed))


def test_several_outputs_come_in_the_graphs_order() -> None:
    graph = graph_of(1)
    middle = next(node.name for node in graph.nodes if node.kind == "conv2d")
    both = graph.with_nodes(graph.nodes, (graph.output_name, middle))
    images = seeded_images(2, IMAGE_SIZE)
    found = Executor(both)(images)
    assert list(found) == [graph.output_name, middle]
    assert torch.equal(found[graph.output_name], Executor(graph)(images)[graph.output_name])
    expected = oracle.run(graph, images.numpy())[middle].astype(np.float32)
    quantizer = graph.quantizer(middle)
    assert np.array_equal(
        found[middle].numpy(), (expected - quantizer.zero_point) * np.float32(quantizer.scale)
    )


def test_the_images_are_left_alone() -> None:
    graph, images = graph_of(0), seeded_images(2, IMAGE_SIZE)
    before = images.clone()
    Executor(graph)(images)
    assert torch.equal(images, before)


def test_a_graph_without_a_quantizer_is_not_run() -> None:
    graph = graph_of(0)
    missing = Graph(graph.input_shape, graph.nodes, graph.outputs, {"input": Quantizer(0.5, 0)})
    with pytest.raises(InputError, match="tensor has no quantizer"):
        Executor(missing)
