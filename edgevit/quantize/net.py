"""A float graph with a fake quantizer on every tensor that an INT8 runtime holds.

NNCF runs a model inside a torch function mode that looks every call up by name; that and its
quantizers cost two thirds of the training speed. Here the graph's operations are run in order, each
with its quantizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.graph.float_run import Adjust, GraphNet, Layer, only_or_all
from edgevit.graph.ties import tie_free, to_fp16_grid
from edgevit.ops import INT8_MAX, INT8_MIN, WEIGHT_MAX, Gelu, Node, Quantizer, Weighted
from edgevit.quantize import fakequant
from edgevit.quantize.fakequant import fake_quantize, triton_kernels


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
        self._places = {name: place for place, name in enumerate(self.names)}
        self._row_starts: Tensor | None = None

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
        real: dict[str, Tensor] = {}
        found = {n: value for n, value in self.run(x, fuse_gelu=True, real=real) if n in outputs}
        return only_or_all([real.get(name, found[name]) for name in outputs])

    def run(
        self,
        x: Tensor,
        adjust: Adjust | None = None,
        fuse_gelu: bool = False,
        real: dict[str, Tensor] | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) by node; `adjust` as for `GraphNet.run`.

        With `fuse_gelu` the same is computed in less memory, but a tensor that only a GELU reads
        is yielded as it is before it is quantized. `real` takes the outputs that are given out as
        real numbers.
        """
        scale, zero, weight_scale = self.scales()
        kernels = triton_kernels(scale.device)
        grids = (kernels or fakequant).Activations(scale, zero)
        weights_of = self._quantized_weights(weight_scale, kernels)
        source = self.graph.input_name
        later = self.gelu_inputs if fuse_gelu else frozenset()
        values = {source: grids.quantize(x, self._place(source))}
        yield source, values[source]
        for layer in self.net.nodes():
            node = layer.node
            weights = layer.weights
            if isinstance(node, Weighted):
                weights = weights_of(node, weights[0]), weights[1]
            if node.inputs[0] in later:
                before = self._place(node.inputs[0])
                value = grids.quantize_gelu(values[node.inputs[0]], before, self._place(node.name))
            elif adjust is not None and isinstance(node, Weighted):
                sums = node.sum_products(values[node.inputs[0]], *weights)
                value = node.activated(adjust(node, sums))
            else:
                value = node.compute([values[name] for name in node.inputs], weights)
            is_real = node.name in self.graph.real_outputs
            if is_real and real is not None:
                real[node.name] = value
            rounds = node.requantizes and node.name not in self.graph.unquantized
            if rounds and not later & {node.name, node.inputs[0]}:
                in_place = not (is_real or _backward_reads_output(node))
                value = grids.quantize(value, self._place(node.name), in_place)
            values[node.name] = value
            for name in self.last_uses.get(node.name, ()):
                del values[name]
            yield node.name, values.get(node.name, value)

    def _place(self, name: str) -> int:
        """Where the scale of a tensor stands among the activations'."""
        return self._places[self.graph.owner(name)]

    def _quantized_weights(
        self, scale: Tensor, kernels: ModuleType | None
    ) -> Callable[[Weighted, Tensor], Tensor]:
        """What gives a layer's fake-quantized weight: each by itself, or all in one launch."""
        pieces = scale.split(self._widths())
        scales = dict(zip(self.layers, pieces, strict=True))
        found: dict[str, Tensor] = {}
        together = [n for n, layer in self.layers.items() if _rows_lie_apart(layer)]
        if kernels is not None and together:
            weights = [self.layers[name].weights[0] for name in together]
            if self._row_starts is None or self._row_starts.device != scale.device:
                self._row_starts = kernels.row_starts(weights)
            flat = torch.cat([scales[name] for name in together])
            made = kernels.quantize_weights(flat, self._row_starts, weights)
            found = dict(zip(together, made, strict=True))

        def quantized(node: Weighted, weight: Tensor) -> Tensor:
            if node.module in found:
                return found[node.module]
            return quantized_weight(node, weight, scales[node.module])

        return quantized

    def _widths(self) -> list[int]:
        return [len(layer.weights[1]) for layer in self.layers.values()]

    def weight_log_scales(self) -> dict[str, Tensor]:
        """Each layer's part of `weight_log_scale` (O,), to be changed in place."""
        parts = self.weight_log_scale.detach().split(self._widths())
        return dict(zip(self.layers, parts, strict=True))

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


def _rows_lie_apart(layer: Layer) -> bool:
    """Whether the weights of each output channel are one piece of memory, channel by channel."""
    node = layer.node
    if not isinstance(node, Weighted) or node.channel_axis != 0:
        return False
    weight = layer.weights[0]
    channels_last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return weight.is_contiguous() or channels_last


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
        and graph.readers(name)[0].name not in graph.real_outputs
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
