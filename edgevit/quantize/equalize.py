"""The factors that bring the channels of a tensor to one size, chosen for the outputs' error.

One scale serves all channels of a tensor: its step S is set by the channel that needs it most, and
each channel's rounding moves the outputs by that step times its own factor f and its own influence.
With a factor for each group of channels that must share one (`graph.equalize`) the error is

    sum over tensors t and channels c of  w_tc * (S_t * f_c)²,   S_t * f_c >= level_tc

with w the mean square of the outputs' gradients. Where S is known the best f_c is the largest of
level_tc / S_t; then this is a convex function of log S (a geometric program), and small: one
number a tensor. Its minimum is at or below the error of any factor that looks at ranges alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgevit.graph import Graph
from edgevit.graph.equalize import FIXED, channel_groups, rescaled
from edgevit.graph.float_run import GraphNet

RELATIVE_BOUND = 1e-5
"""Of the largest output: what float32 rounding may move it by when weights are multiplied."""
INFLUENCE_IMAGES = 64
"""Images whose gradients are taken: channels' influence differs by far more than images do."""
GRADIENT_VALUES = 2**27
"""Values of tensors that one backward keeps, 512 MiB of float32."""
LARGEST_FACTOR = 32.0
"""Of a channel against the mean of its tensor: a channel that was silent may still speak."""
STEPS, RATE = 150, 0.05


@dataclass(frozen=True)
class Equalization:
    """What was done, and the proof that the net computes the same.

    channels        how many got a factor other than 1
    spread          the largest factor over the smallest
    max_abs_delta   the largest |equalized − float| over all outputs of `images`
    max_abs_output  the largest |float|
    kept            whether the equalized graph is the one that goes on; false where the outputs
                    moved by more than `bound`
    """

    channels: int
    spread: float
    images: int
    max_abs_delta: float
    max_abs_output: float
    bound: float
    kept: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        moved = (
            f"outputs move by up to {self.max_abs_delta:.2g} on {self.images} images, allowed "
            f"{self.bound:.2g}"
        )
        if not self.kept:
            return f"the channels are left as they are: equalized, {moved}"
        return f"equalized {self.channels} channels, factors up to {self.spread:.3g}; {moved}"


def equalize(graph: Graph, images: Sequence[Tensor]) -> tuple[Graph, Equalization | None]:
    """A float graph with equalized channels, which computes the same; None: it has none to change.

    images  float32 batches (N, C, H, W) that stand for what the net will see
    """
    groups = channel_groups(graph)
    if not any((group != FIXED).any() for group in groups.values()):
        return graph, None
    levels = channel_levels(graph, images)
    factors = best_factors(graph, groups, levels, influence(graph, images))
    changed = rescaled(graph, factors)
    proof = _prove(graph, changed, factors, images)
    return (changed if proof.kept else graph), proof


@torch.no_grad()
def channel_levels(graph: Graph, images: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """float64 [C], by tensor: the magnitude that each channel's range should reach.

    The geometric mean of the largest magnitude on all images and of the images' largest on average.
    The first alone follows single values, which ranges of least error cut off; the second alone
    cuts off too much. (Logit RMSE of two nets: 0.145 and 0.137, 0.157 and 0.133, both 0.133 and
    0.128.)
    """
    net = GraphNet(graph).to(images[0].device)
    largest: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}

    def see(name: str, value: Tensor) -> None:
        peaks = value.abs().flatten(2).amax(2) if value.dim() > 2 else value.abs()
        most, summed = peaks.amax(0), peaks.double().sum(0)
        if name in largest:
            most, summed = torch.maximum(largest[name], most), total[name] + summed
        largest[name], total[name] = most, summed

    for batch in images:
        see(graph.input_name, batch)
        for name, value in net.run(batch):
            see(name, value)
    count = sum(map(len, images))
    return {
        name: (largest[name].double() * total[name] / count).sqrt().cpu().numpy()
        for name in largest
    }


def influence(graph: Graph, images: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """float64 [C], by tensor: by how much noise of variance 1 on a channel moves the outputs.

    The mean over images of the square of the outputs' gradients, summed over positions and outputs,
    each output in units of its own spread. Estimated as Hutchinson's trace is: one backward a batch
    from a random sum of the outputs with signs of their own.
    """
    net = GraphNet(graph).to(images[0].device).requires_grad_(False)
    signs = torch.Generator().manual_seed(0)
    values = sum(math.prod(graph.shape(name)) for name in graph.tensors())
    size = max(1, GRADIENT_VALUES // values)
    chosen = torch.cat(_first(images, INFLUENCE_IMAGES))
    found: dict[str, Tensor] = {}
    for batch in chosen.split(size):
        for name, gradient in _gradients(net, batch, signs).items():
            squares = gradient.double().square().sum(_all_but_channels(gradient))
            found[name] = found[name] + squares if name in found else squares
    return {name: (total / len(chosen)).cpu().numpy() for name, total in found.items()}


def _gradients(net: GraphNet, batch: Tensor, signs: torch.Generator) -> dict[str, Tensor]:
    graph = net.graph
    values = {graph.input_name: batch.detach().clone().requires_grad_(True)}
    with torch.enable_grad():
        for layer in net.nodes():
            values[layer.node.name] = layer(*(values[name] for name in layer.node.inputs))
        total = batch.new_zeros(())
        for name in graph.outputs:
            output = values[name]
            spread = output.detach().std(correction=0).clamp_min(1e-12)
            sign = torch.randint(0, 2, output.shape, generator=signs).to(output) * 2 - 1
            total = total + (output * sign).sum() / spread
        gradients = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    return {
        name: gradient
        for name, gradient in zip(values, gradients, strict=True)
        if gradient is not None
    }


def best_factors(
    graph: Graph,
    groups: dict[str, np.ndarray],
    levels: dict[str, np.ndarray],
    weights: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """float64 [C], by tensor: the factors of least error; 1 where the group is fixed.

    groups      of `channel_groups`
    levels      what each channel must reach, its largest magnitude for one
    weights     influence of each channel; none for a tensor without any
    """
    owners = {name: place for place, name in enumerate(graph.owners())}
    # What is never rounded is an output or moved into one, whose factors are fixed.
    names = [name for name in graph.tensors() if name not in graph.unquantized]
    group = torch.from_numpy(np.concatenate([groups[name] for name in names]).astype(np.int64))
    owner = torch.from_numpy(
        np.concatenate([np.full(len(groups[name]), owners[graph.owner(name)]) for name in names])
    )
    level = torch.from_numpy(np.concatenate([levels[name] for name in names])).clamp_min(1e-30)
    weight = torch.from_numpy(
        np.concatenate([_weights_of(graph, name, groups, weights) for name in names])
    )
    log_level = level.log()
    count = int(group.max()) + 1

    def log_factors(log_steps: Tensor) -> Tensor:
        lowest = torch.full((count,), -math.inf, dtype=torch.float64)
        found = lowest.scatter_reduce(0, group, log_level - log_steps[owner], "amax")
        return torch.where(torch.arange(count) == FIXED, 0.0, found)

    def log_error(factor: Tensor) -> Tensor:
        reached = torch.full((len(owners),), -math.inf, dtype=torch.float64)
        reached = reached.scatter_reduce(0, owner, log_level - factor[group], "amax")
        return (weight * torch.exp(2 * (factor[group] + reached[owner]))).sum().log()

    steps = torch.full((len(owners),), -math.inf, dtype=torch.float64)
    steps = steps.scatter_reduce(0, owner, log_level, "amax").requires_grad_(True)
    optimizer = torch.optim.Adam([steps], lr=RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            log_error(log_factors(steps)).backward()
            optimizer.step()
    factor = _centred(log_factors(steps.detach()), group, graph, groups)
    return {name: np.exp(factor[groups[name]]) for name in graph.tensors()}


def _weights_of(
    graph: Graph,
    name: str,
    groups: dict[str, np.ndarray],
    weights: dict[str, np.ndarray],
) -> np.ndarray:
    """A tensor's weights; a millionth of its mean at least, so that every factor is decided."""
    node = graph.makes(name)
    found = weights.get(name, np.zeros(len(groups[name])))
    if node is not None and not node.requantizes:  # its values are rounded where they are made
        return np.zeros_like(found)
    return np.maximum(found, 1e-6 * found.mean() + 1e-30)


def _centred(
    log_factor: Tensor, group: Tensor, graph: Graph, groups: dict[str, np.ndarray]
) -> np.ndarray:
    """The logarithms with a mean of 0 among the groups of connected tensors, and not far from it.

    A factor on all channels of a group of tensors changes nothing but the size of the weights.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(log_factor)
    pairs = [
        np.stack([np.full(len(free), free[0]), free])
        for free in (each[each != FIXED] for each in groups.values())
        if len(free)
    ]
    first, second = np.concatenate(pairs, axis=1)
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    _, together = connected_components(edges, directed=False)
    held_to_one = {
        together[place]
        for each in groups.values()
        if (each == FIXED).any()
        for place in each[each != FIXED]
    }
    result = log_factor.numpy().copy()
    limit = math.log(LARGEST_FACTOR)
    for label in np.unique(together[1:]):
        members = np.flatnonzero(together == label)
        members = members[members != FIXED]
        centre = 0.0 if label in held_to_one else result[members].mean()
        result[members] = np.clip(result[members] - centre, -limit, limit)
    return result


@torch.no_grad()
def _prove(
    graph: Graph, changed: Graph, factors: dict[str, np.ndarray], images: Sequence[Tensor]
) -> Equalization:
    """Run both graphs on the first images and compare every output."""
    before, after = (GraphNet(each).to(images[0].device) for each in (graph, changed))
    delta = largest = 0.0
    chosen = _first(images, INFLUENCE_IMAGES)
    for batch in chosen:
        for found, expected in zip(_all(after(batch)), _all(before(batch)), strict=True):
            moved = (found - expected).abs().nan_to_num(nan=math.inf)  # NaN is no proof
            delta = max(delta, min(float(moved.max()), sys.float_info.max))
            largest = max(largest, float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max()))
    bound = RELATIVE_BOUND * max(1.0, largest)
    every = np.concatenate(list(factors.values()))
    free = sum(int((factor != 1).sum()) for factor in factors.values())
    return Equalization(
        channels=free,
        spread=float(np.nan_to_num(every.max() / every.min())),
        images=sum(map(len, chosen)),
        max_abs_delta=delta,
        max_abs_output=largest,
        bound=bound,
        kept=bool(delta <= bound),
    )


def _all(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _first(images: Sequence[Tensor], count: int) -> list[Tensor]:
    """Batches of the first `count` images."""
    found: list[Tensor] = []
    for batch in images:
        if count > 0:
            found.append(batch[:count])
            count -= len(batch)
    return found


def _all_but_channels(value: Tensor) -> tuple[int, ...]:
    return tuple(axis for axis in range(value.dim()) if axis != 1)
