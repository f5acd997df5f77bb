"""A float graph with a fake quantizer on every tensor that an INT8 runtime holds.

NNCF runs a model inside a torch function mode that looks every call up by name; that and its
quantizers cost two thirds of the training speed. Here the graph's operations are run in order, each
with its quantizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.graph.float_run import Adjust, GraphNet, only_or_all
from edgevit.graph.ties import tie_free, to_fp16_grid
from edgevit.ops import INT8_MAX, INT8_MIN, WEIGHT_MAX, Gelu, Node, Quantizer, Weighted
from edgevit.quantize.fakequant import fake_quantize, fake_quantize_gelu


class QuantizedNet(nn.Module):
    """Runs a graph with fake quantizers; train its parameters like any module's.

    Parameters: the layers' float weights and biases; `log_scale` (A,), the natural logarithm of
    each activation scale; `zero_point` (A,), trained in the asymmetric profile and rounded in the
    forward; `weight_log_scale` (W,), all weight scales, one an output channel, layer after layer.
    Logarithms, so that one learning rate means the same relative change for every scale.
    """

    fixed: Tensor
    exact_scale: Tensor
    exact_weight_scale: Tensor
    snapped: Tensor

    def __init__(
        self,
        graph: Graph,
        activations: Mapping[str, Quantizer],
        weight_scales: Mapping[str, np.ndarray],
    ) -> None:
        """
        graph          float
        activations    owner's name -> quantizer to start from
        weight_scales  module path -> float32 [O]
        Raises InputError when a tensor has no quantizer or a quantizer no tensor.
        """
        super().__init__()
        self.graph = graph
        self.net = GraphNet(graph)
        self.names = graph.owners()
        self.layers = self.net.weighted()
        _same_names("activation", self.names, activations)
        _same_names("weight", list(self.layers), weight_scales)
        self.quantizers = {name: activations[name] for name in self.names}
        fixed = [graph.fixed(name) is not None for name in self.names]
        self.register_buffer("fixed", torch.tensor(fixed), persistent=False)
        scales = torch.tensor([activations[n].scale for n in self.names], dtype=torch.float64)
        zeros = [float(activations[n].zero_point) for n in self.names]
        self.log_scale = nn.Parameter(scales.log().float())
        self.register_buffer("exact_scale", scales.float())
        self.zero_point = nn.Parameter(torch.tensor(zeros))
        flat = torch.from_numpy(np.concatenate([weight_scales[name] for name in self.layers]))
        self.weight_log_scale = nn.Parameter(flat.log())
        self.register_buffer("exact_weight_scale", flat.clone())
        # A symmetric profile keeps every zero-point at 0; only others are trained.
        self.zero_point_trained = any(zeros[i] for i, f in enumerate(fixed) if not f)
        # Once snapped, the exact values are used and exp(log) must not touch them again.
        self.register_buffer("snapped", torch.tensor(False))
        # The same for the host: reading the buffer would wait for the device in every step.
        self._is_snapped = False
        self.register_load_state_dict_post_hook(QuantizedNet._read_snapped)
        self.last_uses = graph.last_uses()
        self.gelu_inputs = _only_for_gelu(graph)

    def scales(self) -> tuple[Tensor, Tensor, Tensor]:
        """Activation scales (A,), zero-points (A,), weight scales (W,) as the forward uses them."""
        if self._is_snapped:
            return self.exact_scale, self.zero_point.detach().round(), self.exact_weight_scale
        scale = torch.where(self.fixed, self.exact_scale, self.log_scale.exp())
        zero = torch.where(self.fixed, self.zero_point.detach(), self.zero_point)
        return scale, zero, self.weight_log_scale.exp()

    def _read_snapped(self, _: object) -> None:
        self._is_snapped = bool(self.snapped)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """float32 images (N, C, H, W) to the output, or a tuple of several."""
        outputs = self.graph.outputs
        found = {name: value for name, value in self.run(x, fuse_gelu=True) if name in outputs}
        return only_or_all([found[name] for name in outputs])

    def run(
        self,
        x: Tensor,
        adjust: Adjust | None = None,
        fuse_gelu: bool = False,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) by node; `adjust` as for `GraphNet.run`.

        With `fuse_gelu` the same is computed in less memory, but a tensor that only a GELU reads
        is yielded as it is before it is quantized.
        """
        scale, zero, weight_scale = self.scales()
        scales = dict(zip(self.names, scale.split(1), strict=True))
        zeros = dict(zip(self.names, zero.split(1), strict=True))
        widths = self._widths()
        weight_scales = dict(zip(self.layers, weight_scale.split(widths), strict=True))

        def grid(name: str) -> tuple[Tensor, Tensor, int, int]:
            owner = self.graph.owner(name)
            return scales[owner], zeros[owner], INT8_MIN, INT8_MAX

        source = self.graph.input_name
        later = self.gelu_inputs if fuse_gelu else frozenset()
        values = {source: fake_quantize(x, *grid(source))}
        yield source, values[source]
        for layer in self.net.nodes():
            node = layer.node
            weights = layer.weights
            if isinstance(node, Weighted):
                weight, bias = weights
                weights = quantized_weight(node, weight, weight_scales[node.module]), bias
            if node.inputs[0] in later:
                before, after = grid(node.inputs[0]), grid(node.name)
                value = fake_quantize_gelu(values[node.inputs[0]], *before[:2], *after)
            elif adjust is not None and isinstance(node, Weighted):
                sums = node.sum_products(values[node.inputs[0]], *weights)
                value = node.activated(adjust(node, sums))
            else:
                value = node.compute([values[name] for name in node.inputs], weights)
            if node.requantizes and not later & {node.name, node.inputs[0]}:
                in_place = not _backward_reads_output(node)
                value = fake_quantize(value, *grid(node.name), in_place)
            values[node.name] = value
            for name in self.last_uses.get(node.name, ()):
                del values[name]
            yield node.name, values.get(node.name, value)

    def _widths(self) -> list[int]:
        return [len(layer.weights[1]) for layer in self.layers.values()]

    def weight_scales(self) -> dict[str, np.ndarray]:
        """float32 [O] for every convolution and linear layer."""
        flat = self.scales()[2].detach().cpu().split(self._widths())
        return {name: scale.numpy() for name, scale in zip(self.layers, flat, strict=True)}

    def activation_quantizers(self) -> dict[str, Quantizer]:
        """The quantizers as they are now, in execution order."""
        scale, zero, _ = (values.detach() for values in self.scales())
        result = {}
        for i, name in enumerate(self.names):
            q = self.quantizers[name]
            zero_point = int(zero[i].round().clamp(INT8_MIN, INT8_MAX))
            result[name] = Quantizer(float(scale[i]), zero_point, how=q.how)
        return result

    def float_graph(self) -> Graph:
        """The float graph with the weights as they are now."""
        return self.net.float_graph()

    @torch.no_grad()
    def snap(self) -> None:
        """Move every scale to a value of fp16 without ties; freeze scales and zero-points."""
        if self._is_snapped:
            return
        scale, _, weight_scale = self.scales()
        by_name = dict(zip(self.names, scale.tolist(), strict=True))
        free = tie_free(self.graph, by_name)
        self.exact_scale.copy_(torch.tensor([free[name] for name in self.names]))
        self.exact_weight_scale.copy_(torch.from_numpy(to_fp16_grid(weight_scale.cpu().numpy())))
        self.bound_zero_points()
        self.zero_point.round_()
        self.snapped.fill_(True)
        self._is_snapped = True

    @torch.no_grad()
    def bound_zero_points(self) -> None:
        """Keep every zero-point on the int8 grid, where 0.0 is represented exactly."""
        self.zero_point.clamp_(INT8_MIN, INT8_MAX)


def quantized_weight(node: Weighted, weight: Tensor, scale: Tensor) -> Tensor:
    """Fake-quantized int8 weights, one symmetric scale an output channel."""
    zero = scale.new_zeros(1)
    if node.channel_axis == 0:
        return fake_quantize(weight, scale, zero, -WEIGHT_MAX, WEIGHT_MAX)
    moved = weight.transpose(0, node.channel_axis).contiguous()
    moved = fake_quantize(moved, scale, zero, -WEIGHT_MAX, WEIGHT_MAX)
    return moved.transpose(0, node.channel_axis)


def _backward_reads_output(node: Node) -> bool:
    activation = node.activation if isinstance(node, Weighted) else None
    return (activation or type(node)).backward_reads_output


def _only_for_gelu(graph: Graph) -> frozenset[str]:
    """The tensors that one GELU reads and nothing else, and that have their own quantizer.

    Not a GELU's own output: it is quantized where that GELU is computed.
    """
    return frozenset(
        name
        for name in graph.tensors()
        if [type(reader) for reader in graph.readers(name)] == [Gelu]
        and name not in graph.outputs
        and name != graph.input_name
        and graph.node(name).requantizes
        and not isinstance(graph.node(name), Gelu)
    )


def _same_names(kind: str, tensors: list[str], quantizers: Mapping[str, object]) -> None:
    missing = [name for name in tensors if name not in quantizers]
    extra = [name for name in quantizers if name not in set(tensors)]
    if missing or extra:
        raise InputError(
            f"{kind} quantizers do not match the net: "
            + (f"none for {', '.join(missing[:5])}" if missing else "")
            + (f" no tensor named {', '.join(extra[:5])}" if extra else "")
        )
