"""How many int8 values of a TFLite artifact under LiteRT differ from its program's: none are to.

    python benchmarks/exact.py --work build/exact [--programs M.evq ...] [--nets NAME ...]
                               [--values 1e9]
    qemu-x86_64 -cpu Nehalem .venv/bin/python benchmarks/exact.py ...   (another CPU's kernels)

Every tensor of every image is compared, of the nets below and of the programs given, in turn, until
`--values` values were counted. Images are half photographs (the embedded sample, enlarged), half
what no camera gives: noise, single colours, black and white. The logits of the file as it ships are
compared too: asking for all tensors could keep the runtime from fusing. Nets are quantized in
`--work` once; a net without trained weights has seeded ones, whose norms have seen images.
"""

from __future__ import annotations

import argparse
import logging
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_result

CHUNK_IMAGES = 4
EMBEDDED = "repvit_m0_9_eurosat64.safetensors"


@dataclass(frozen=True)
class Net:
    """A program to make: RepViT variant, input side in pixels, and options of quantize.

    An `epochs` of 0 is post-training quantization.
    """

    variant: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)
    images: int = 64

    @property
    def name(self) -> str:
        words = [str(v) for k, v in self.options.items() if k in ("profile", "activation")]
        tuned = ["tuned"] if self.options["epochs"] else ["ptq"]
        return "-".join([self.variant, str(self.size), *words, *tuned])


def nets() -> list[Net]:
    """Each size, each width, both profiles, both gates, before and after fine-tuning."""
    ptq, tuned = {"epochs": 0}, {"epochs": 2.0, "batch_size": 8}
    return [
        Net("m0_9", 64, ptq), Net("m0_9", 64, {"profile": "asymmetric", **tuned}),
        Net("m0_9", 64, {"activation": "quick-gelu", **tuned}),
        Net("m0_9", 128, {"profile": "asymmetric", **ptq}), Net("m0_9", 224, ptq),
        Net("m0_9", 224, tuned, 24), Net("m1_0", 128, tuned, 32),
        Net("m1_0", 224, {"profile": "asymmetric", "activation": "quick-gelu", **ptq}, 16),
        Net("m2_3", 64, tuned, 32), Net("m2_3", 128, {"activation": "quick-gelu", **ptq}, 16),
        Net("m2_3", 224, ptq, 16),
    ]  # fmt: skip


def model_of(net: Net) -> Any:
    """The embedded trained net, or one of seeded weights whose norms have seen images."""
    import torch

    from edgevit.models import repvit
    from edgevit.models.checkpoint import load
    from edgevit.project import EMBEDDED as FOLDER

    if net.variant == "m0_9":
        return load(FOLDER / EMBEDDED, image_size=net.size).model
    torch.manual_seed(0)
    model = getattr(repvit, f"repvit_{net.variant}")(num_classes=10).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    images = np.stack(list(photographs(net.size, 16)))
    with torch.no_grad():
        model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 64 - 2)
    return model.eval()


def program_of(net: Net, work: Path) -> Path:
    """The net's program in `work`, made unless it is there."""
    import edgevit
    from edgevit.project import EMBEDDED as FOLDER

    path = work / f"{net.name}.evq"
    if path.exists():
        return path
    train = edgevit.ImageFolder(FOLDER / "train.tar", size=net.size, resize=net.size)
    labelled = [
        (train.pixels([i])[0], int(train.labels[i])) for i in range(0, 1600, 1600 // net.images)
    ]
    images = edgevit.from_sequence(labelled, like=train)
    result = edgevit.quantize(
        model_of(net), images, images, calibration_images=min(32, net.images), max_drop=100,
        evaluations=1, allow_poor_float=True, run_dir=path.with_suffix(".run"), **net.options,
    )  # fmt: skip
    result.program.save(path)
    return path


def photographs(size: int, count: int) -> Iterator[np.ndarray]:
    """uint8 (size, size, 3) of the embedded val images, enlarged."""
    import edgevit
    from edgevit.project import EMBEDDED as FOLDER

    source = edgevit.ImageFolder(FOLDER / "val.tar", size=size, resize=size)
    for i in range(count):
        yield source.pixels([i * 37 % len(source)])[0]


def images(size: int, seed: int) -> Iterator[np.ndarray]:
    """uint8 (CHUNK_IMAGES, size, size, 3) without end."""
    random = np.random.default_rng(seed)
    while True:
        taken = list(photographs(size, 500))
        for i in range(0, len(taken), CHUNK_IMAGES // 2):
            made = [
                random.integers(0, 256, (size, size, 3)),
                np.broadcast_to(random.integers(0, 256, 3), (size, size, 3)),
                255 * random.integers(0, 2, (size, size, 1)).repeat(3, 2),
            ]
            chosen = [made[int(k)] for k in random.permutation(3)[: CHUNK_IMAGES // 2]]
            yield np.stack([*taken[i : i + CHUNK_IMAGES // 2], *chosen]).astype(np.uint8)


def count(path: Path, work: Path, wanted: int) -> dict[str, Any]:
    """Values compared and differing, until `wanted` are counted.

    What differs behind another difference is counted as well; "own" are, by operation, those that
    differ from what the program computes of LiteRT's own inputs.
    """
    import torch

    from edgevit.graph.execute import Executor
    from edgevit.program import Program
    from edgevit.targets import load_target
    from edgevit.targets.artifact import load_artifact

    program = Program.load(path)
    folder = work / f"{program.sha256[:16]}-tflite"
    if not folder.exists():
        load_target("tflite").compile(program, folder)
    runner = load_target("tflite").open_runner(load_artifact(folder))
    executor = Executor(program.graph())
    size = program.info.model.image_size
    result: dict[str, Any] = {"values": 0, "differing": 0, "images": 0, "logits_differing": 0}
    own: dict[str, int] = {}
    for pixels in images(size, 1):
        normalised = program.info.preprocessing.normalise(pixels)
        expected = dict(program.tensors(normalised))
        found = dict(runner.tensors(pixels, program))
        result["values"] += sum(each.size for each in found.values())
        off = sum(int((v != expected[name].numpy()).sum()) for name, v in found.items())
        result["differing"] += off
        if off:
            add_own(own, executor, {n: torch.from_numpy(v) for n, v in found.items()})
        logits = runner.scores(pixels)
        result["logits_differing"] += int((logits != program.run(normalised).numpy()).sum())
        result["images"] += len(pixels)
        if result["values"] >= wanted:
            break
    return {**result, "own": own}


def add_own(own: dict[str, int], executor: Any, found: dict[str, Any]) -> None:
    """Add to `own` what each operation makes otherwise of the inputs that LiteRT had."""
    for node in executor.graph.nodes:
        if node.name in found and all(name in found for name in node.inputs):
            made = executor.step(node, [found[name] for name in node.inputs])
            off = int((made != found[node.name]).sum())
            if off:
                own[node.kind] = own.get(node.kind, 0) + off


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--programs", type=Path, nargs="*", default=[])
    parser.add_argument("--nets", nargs="*", default=[net.name for net in nets()])
    parser.add_argument("--values", type=float, default=1e9)
    parser.add_argument("--result", default="exact", help="name of the file of figures")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    given.work.mkdir(parents=True, exist_ok=True)
    before = machine()
    paths = [program_of(net, given.work) for net in nets() if net.name in given.nets]
    paths += given.programs
    figures = {}
    for path in paths:
        name = path.stem if path.parent == given.work else f"{path.parent.name}/{path.stem}"
        figures[name] = count(path, given.work, int(given.values / len(paths)) + 1)
        print(name, figures[name], flush=True)
    total = {
        key: sum(row[key] for row in figures.values())
        for key in ("values", "differing", "images", "logits_differing")
    }
    print(total)
    write_result(
        given.result, {"arch": platform.machine(), "total": total, "programs": figures}, before
    )


if __name__ == "__main__":
    main()
