"""What each part of the post-training recipe brings: agreement with float and the logits' error.

    python benchmarks/recipe.py \\
        --set tiny-imagenet TRAIN.tar DEV.tar repvit_m1_0_tin128.pth 128 \\
        --set eurosat TRAIN.tar VAL.tar repvit_m0_9_eurosat64.pth 64 \\
        [--select 1000] [--report 5000] [--seeds 0 1] [--only NAME ...]

A set is: its name, training images, images to report on, checkpoint, input size. Defaults are
chosen by the `selection` figures: a tenth of the training images, on which nothing calibrates. The
`report` figures are for the table; nothing is chosen by them. A seed draws the calibration images.
Nets are fake-quantized with snapped scales, which the integer program follows but for rare
roundings. CANDIDATES lists what was tried, the unhelpful included. Figures are written after each
candidate; those of an earlier run of the same --name are kept where they are not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import RESULTS, machine, write_result

if TYPE_CHECKING:
    from edgevit.choices import Profile

CALIBRATION_IMAGES, BATCH = 256, 16
MARGINS = (0.0, 0.25, 0.5, 1.0, float("inf"))
HOLDOUT = 0.1


@dataclass(frozen=True)
class Candidate:
    """One way from a float graph to a post-training quantized net.

    factors     "none"; "best": `equalize`; others are variants that the comparison is with
    levels      what the factors bring to one size: "both", "largest" or "average"
    cut         how much a value that is cut off counts against one that is rounded; 0: min/max
    biases      "before" the scales are snapped, "after", or "none"
    gains       whether each channel's gain is corrected with its bias
    shifted     kinds of operations whose outputs get a zero-point, where 1×1 convolutions read them
    real        kinds whose outputs are not quantized at all: no program, but the most to be gained
    """

    factors: str = "best"
    levels: str = "both"
    cut: float = 1.0
    biases: str = "before"
    profile: Profile = "portable"
    gains: bool = True
    shifted: tuple[str, ...] = ()
    real: tuple[str, ...] = ()


DEFAULT = Candidate()
BASELINE = Candidate(factors="none", cut=0.0)
CANDIDATES: dict[str, Candidate] = {
    "min/max (before)": BASELINE,
    "least-error ranges": replace(DEFAULT, factors="none"),
    "equalized": replace(DEFAULT, cut=0.0),
    "equalized, least-error ranges (default)": DEFAULT,
    "factors by ranges alone": replace(DEFAULT, factors="ranges"),
    "factors without influence": replace(DEFAULT, factors="even"),
    "factors of powers of two": replace(DEFAULT, factors="powers of two"),
    "levels: largest": replace(DEFAULT, levels="largest"),
    "levels: average of images": replace(DEFAULT, levels="average"),
    "cut-off values count 4 times": replace(DEFAULT, cut=4.0),
    "cut-off values count a quarter": replace(DEFAULT, cut=0.25),
    "biases alone, after snapping": replace(DEFAULT, biases="after"),
    "neither corrected": replace(DEFAULT, biases="none"),
    "gains not corrected (before)": replace(DEFAULT, gains=False),
    "zero-points for GELU": replace(DEFAULT, shifted=("gelu",)),
    "zero-points for GELU and ReLU": replace(DEFAULT, shifted=("gelu", "relu")),
    "GELU not quantized (a bound)": replace(DEFAULT, real=("gelu",)),
    "asymmetric, min/max (before)": replace(BASELINE, profile="asymmetric"),
    "asymmetric, default": replace(DEFAULT, profile="asymmetric"),
}


@dataclass(frozen=True)
class Images:
    """float32 images, their classes, and the float net's logits."""

    pixels: Any
    labels: np.ndarray
    logits: np.ndarray


def equalized(graph: Any, candidate: Candidate, calibration: list[Any]) -> Any:
    """The graph with the candidate's factors."""
    from edgevit.graph.equalize import channel_groups, rescaled
    from edgevit.quantize.equalize import best_factors, equalize, influence

    if candidate.factors == "none":
        return graph
    if candidate.factors == "best" and candidate.levels == "both":
        return equalize(graph, calibration)[0]
    groups = channel_groups(graph)
    levels = levels_of(graph, candidate.levels, calibration)
    if candidate.factors == "ranges":
        return rescaled(graph, by_ranges(groups, levels))
    even = {name: np.ones(len(level)) for name, level in levels.items()}
    weights = even if candidate.factors == "even" else influence(graph, calibration)
    factors = best_factors(graph, groups, levels, weights)
    if candidate.factors == "powers of two":
        factors = {name: 2.0 ** np.round(np.log2(factor)) for name, factor in factors.items()}
    return rescaled(graph, factors)


def levels_of(graph: Any, kind: str, calibration: list[Any]) -> dict[str, np.ndarray]:
    """float64 [C], by tensor, of the kind that a candidate names."""
    from edgevit.quantize.equalize import channel_levels

    both = channel_levels(graph, calibration)
    if kind == "both":
        return both
    largest = largest_levels(graph, calibration)
    if kind == "largest":
        return largest
    return {name: level**2 / np.maximum(largest[name], 1e-30) for name, level in both.items()}


def largest_levels(graph: Any, calibration: list[Any]) -> dict[str, np.ndarray]:
    """float64 [C], by tensor: the largest magnitude of all images."""
    import torch

    from edgevit.graph.float_run import GraphNet

    net, found = GraphNet(graph), {}
    with torch.no_grad():
        for batch in calibration:
            for name, value in itertools.chain([(graph.input_name, batch)], net.run(batch)):
                axes = tuple(axis for axis in range(value.dim()) if axis != 1)
                level = value.abs().amax(axes).double().numpy()
                found[name] = np.maximum(found.get(name, 0.0), level)
    return found


def by_ranges(
    groups: Mapping[str, np.ndarray], levels: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Each group's largest share of its tensors' ranges (arXiv 1906.04721, with sums)."""
    from edgevit.graph.equalize import FIXED

    share = np.full(1 + max(int(group.max()) for group in groups.values()), 1 / 64)
    for name, group in groups.items():
        np.maximum.at(share, group, levels[name] / max(levels[name].max(), 1e-30))
    share[FIXED] = 1.0
    return {name: share[group] for name, group in groups.items()}


@dataclass(frozen=True)
class Placed:
    """An equalized graph and its quantizers."""

    graph: Any
    activations: dict[str, Any]
    weight_scales: dict[str, np.ndarray]


def placed(graph: Any, candidate: Candidate, calibration: list[Any]) -> Placed:
    """What the candidate's nets start from."""
    from edgevit.quantize import clip
    from edgevit.quantize.place import place

    graph = equalized(graph, candidate, calibration)
    counted = clip.CUT_WEIGHT
    try:
        clip.CUT_WEIGHT = candidate.cut or counted
        ranges = "mse" if candidate.cut else "minmax"
        activations, scales, _ = place(graph, calibration, candidate.profile, ranges)
    finally:
        clip.CUT_WEIGHT = counted
    return Placed(graph, activations, scales)


def quantized(start: Placed, candidate: Candidate, calibration: list[Any]) -> Any:
    """The candidate's net, its scales snapped; run it inside `unrounded`, as this does."""
    import torch

    from edgevit.quantize.net import QuantizedNet
    from edgevit.quantize.ptq import correct_sums

    activations = dict(start.activations)
    if candidate.shifted:
        activations |= shifted(start.graph, candidate.shifted, calibration)
    net = QuantizedNet(start.graph, activations, start.weight_scales).eval()
    with unrounded(net, candidate.real):
        if candidate.biases == "before":
            correct_sums(net, torch.cat(calibration), gains=candidate.gains)
        net.snap()
        if candidate.biases == "after":
            correct_sums(net, torch.cat(calibration), gains=False)
    return net


def outputs_of_kind(graph: Any, kinds: tuple[str, ...]) -> list[str]:
    """Owners that operations of these kinds make and unpadded convolutions or linears alone read.

    There a zero-point folds into the readers' biases, so that a symmetric target could shift it.
    """
    from edgevit.ops import Conv2d, Linear

    def folds(node: Any) -> bool:
        return isinstance(node, Linear) or (isinstance(node, Conv2d) and node.padding == (0, 0))

    def kind_of(node: Any) -> str:
        return getattr(getattr(node, "activation", None) or node, "kind", "")

    return [
        name
        for name in graph.owners()
        if kind_of(graph.makes(name)) in kinds
        and name not in graph.outputs
        and all(folds(reader) for reader in graph.readers(name))
    ]


def shifted(graph: Any, kinds: tuple[str, ...], calibration: list[Any]) -> dict[str, Any]:
    """Quantizers with a zero-point, of least error, for `outputs_of_kind`."""
    from edgevit.quantize.clip import least_error_ranges
    from edgevit.quantize.place import observe, quantizers_from_ranges

    seen = observe(graph, calibration)
    ranges = least_error_ranges(graph, calibration, seen, "asymmetric")
    found = quantizers_from_ranges(graph, ranges, "asymmetric")
    return {name: found[name] for name in outputs_of_kind(graph, kinds)}


@contextlib.contextmanager
def unrounded(net: Any, kinds: tuple[str, ...]) -> Iterator[None]:
    """Inside, `net` leaves `outputs_of_kind` real: what their quantizers cost at the most."""
    from torch.nn import functional

    from edgevit.quantize import fakequant

    names = outputs_of_kind(net.graph, kinds)
    places = {place for place, name in enumerate(net.names) if name in names}

    class Activations(fakequant.Activations):
        def quantize(self, x: Any, index: int, in_place: bool = False) -> Any:
            return x if index in places else super().quantize(x, index, in_place)

        def quantize_gelu(self, x: Any, before: int, after: int) -> Any:
            return self.quantize(functional.gelu(self.quantize(x, before)), after)

    rounding = fakequant.Activations
    fakequant.Activations = Activations
    try:
        yield
    finally:
        fakequant.Activations = rounding


def logits_of(net: Callable[[Any], Any], pixels: Any) -> np.ndarray:
    """float32 (N, K)."""
    import torch

    with torch.inference_mode():
        return np.concatenate([net(batch).numpy() for batch in pixels.split(64)])


def compared(found: np.ndarray, images: Images) -> dict[str, Any]:
    """Top-1, drop, agreement, the logits' error, and the changed predictions by float's margin.

    The logits' error also less what one factor on all of them explains, which changes no class
    (cutting values off makes them smaller), and that of the difference of float's two best.
    """
    classes, expected = found.argmax(1), images.logits.argmax(1)
    same = classes == expected
    best = np.argsort(images.logits, 1)[:, :-3:-1]
    first, second = np.take_along_axis(images.logits, best, 1).T
    margin = first - second
    gain = float((found * images.logits).sum() / (images.logits**2).sum())
    top1, float_top1 = (100 * float((c == images.labels).mean()) for c in (classes, expected))
    return {
        "images": len(found),
        "float_top1": round(float_top1, 3),
        "top1": round(top1, 3),
        "drop": round(float_top1 - top1, 3),
        "agreement": round(100 * float(same.mean()), 3),
        "logit_rmse": round(rms(found - images.logits), 5),
        "logit_rmse_less_gain": round(rms(found - gain * images.logits), 5),
        "margin_rmse": round(rms(np.take_along_axis(found - images.logits, best, 1) @ (1, -1)), 5),
        "changed_by_margin": {
            f"{low:g} to {high:g}": {
                "changed": int((~same & (margin >= low) & (margin < high)).sum()),
                "images": int(((margin >= low) & (margin < high)).sum()),
            }
            for low, high in itertools.pairwise(MARGINS)
        },
    }


def rms(values: np.ndarray) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(values**2)))


def one_set(
    given: list[str],
    options: argparse.Namespace,
    figures: dict[str, Any],
    write: Callable[[], object],
) -> None:
    """Every candidate on one set, added to the set's figures and written."""
    from edgevit.data.batches import batch_of, channels_last, draw, split
    from edgevit.data.source import ImageFolder
    from edgevit.graph.float_run import GraphNet
    from edgevit.models.checkpoint import load
    from edgevit.quantize.subject import subject_of

    name, train_path, report_path, checkpoint, side = given
    size = int(side)
    train = ImageFolder(train_path, size=size)
    fit, held = split(len(train), HOLDOUT, 0)
    model = load(checkpoint, image_size=size).model
    proof = batch_of(train, draw(fit, 16, 0))
    graph = subject_of(model, proof, "training images", None).graph
    net = GraphNet(graph).eval()

    def images_of(source: Any, chosen: list[int]) -> Images:
        pixels = batch_of(source, chosen)
        return Images(pixels, source.labels[chosen], logits_of(net, pixels))

    parts = {"selection": images_of(train, draw(held, options.select, 1))}
    if options.report:
        report = ImageFolder(report_path, like=train)
        parts["report"] = images_of(report, draw(list(range(len(report))), options.report, 1))
    figures |= {"checkpoint": Path(checkpoint).name, "image_size": size}
    measured = figures.setdefault("candidates", {})
    chosen = {title: c for title, c in CANDIDATES.items() if title in (options.only or CANDIDATES)}
    measured |= {title: [] for title in chosen}
    for seed in options.seeds:
        batch = batch_of(train, draw(fit, CALIBRATION_IMAGES, seed))
        calibration = [channels_last(piece) for piece in batch.split(BATCH)]
        start: Placed | None = None
        before: Candidate | None = None
        for title, candidate in chosen.items():
            # Equalizing and placing take most of the time; candidates in a row share them.
            plain = replace(candidate, biases=DEFAULT.biases, gains=0.0, shifted=(), real=())
            if start is None or plain != before:
                start, before = placed(graph, plain, calibration), plain
            net = quantized(start, candidate, calibration)
            with unrounded(net, candidate.real):
                found = {
                    k: compared(logits_of(net, part.pixels), part) for k, part in parts.items()
                }
            measured[title].append({"seed": seed, **found})
            line = {k: (f["logit_rmse"], f["agreement"], f["drop"]) for k, f in found.items()}
            print(name, title, seed, line, flush=True)
            write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--set", nargs=5, action="append", required=True, dest="sets",
        metavar=("NAME", "TRAIN", "REPORT", "CHECKPOINT", "SIZE"),
    )  # fmt: skip
    parser.add_argument("--select", type=int, default=1000, help="Images to select by.")
    parser.add_argument("--report", type=int, default=0, help="Images to report on; 0: none.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="recipe", help="Of the result file.")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    before = machine()
    earlier = RESULTS / f"{options.name}.json"
    sets: dict[str, Any] = json.loads(earlier.read_text())["sets"] if earlier.exists() else {}
    for given in options.sets:
        one_set(
            given,
            options,
            sets.setdefault(given[0], {}),
            lambda: write_result(options.name, {"threads": options.threads, "sets": sets}, before),
        )


if __name__ == "__main__":
    main()
