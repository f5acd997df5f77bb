"""Speed and memory of quantization-aware training against float training of the same fused net.

    python benchmarks/training.py [--rounds 5] [--device cuda [--precision float32]]

Each mode runs in a process of its own, in turn, `rounds` times: float (the fused net), edgevit
(the QuantizedNet that `edgevit quantize` trains), edgevit-torch (the same without the compiled
kernel) and nncf (the model that nncf.quantize returns, as it comes). A step is forward, loss,
backward and AdamW, without a teacher. Float and edgevit run in channels-last, the faster layout
for both; nncf as well.

On CUDA the step of edgevit is the product's (edgevit.quantize.step): captured, but for
edgevit-uncaptured. All modes let cuDNN choose its kernels by timing them, but for
edgevit-deterministic, which is set as `edgevit quantize` is; float-captured is float training with
the same capture. The result is benchmarks/results/training_cuda.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from common import machine, observed_quantizers, write_result

MODES = ("float", "edgevit", "edgevit-torch", "nncf")
SETTINGS = {"64px": (64, 32, 12), "224px": (224, 16, 3)}  # image size, batch, timed steps
GPU_MODES = (
    "float", "float-captured", "edgevit", "edgevit-uncaptured", "edgevit-deterministic",
    "edgevit-torch", "nncf",
)  # fmt: skip
GPU_SETTINGS = {"224px": (224, 128, 20), "64px": (64, 512, 20)}
WARMUP_STEPS = 2
GPU_WARMUP_STEPS = 6


def one_process(mode: str, setting: str) -> dict[str, float]:
    """Time the steps of one mode and read the process's peak memory."""
    import torch
    import torch.nn.functional as F

    from edgevit.data.batches import channels_last
    from edgevit.models.variants import repvit_m0_9

    size, batch, steps = SETTINGS[setting]
    torch.manual_seed(0)
    net = repvit_m0_9(1000, distillation=False).eval().fuse().to(memory_format=torch.channels_last)
    images = channels_last(torch.randn(batch, 3, size, size))
    labels = torch.randint(1000, (batch,))
    net = prepared(mode, net, size).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, foreach=True)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    times_s = []
    for _ in range(WARMUP_STEPS + steps):
        start = time.perf_counter()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times_s.append(time.perf_counter() - start)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "step_s": statistics.median(times_s[WARMUP_STEPS:]),
        "images_per_s": batch / statistics.median(times_s[WARMUP_STEPS:]),
        "peak_mib": peak_mib,
        "training_mib": peak_mib - before_mib,
    }


def on_gpu(mode: str, setting: str, precision: str) -> dict[str, float | bool]:
    """The same on CUDA: the time of all steps together, and the GPU's memory."""
    import contextlib

    import torch

    from edgevit.data.batches import channels_last
    from edgevit.device import at_precision, chosen_device
    from edgevit.models.variants import repvit_m0_9
    from edgevit.runs.deterministic import deterministic

    device = chosen_device("cuda")
    size, batch, steps = GPU_SETTINGS[setting]
    torch.manual_seed(0)
    net = repvit_m0_9(1000, distillation=False).eval().fuse()
    net = prepared(mode.split("-")[0], net, size).to(device)
    net = net.to(memory_format=torch.channels_last).train()
    images = channels_last(torch.randn(batch, 3, size, size)).to(device)
    labels = torch.randint(1000, (batch,)).to(device)
    fixed = mode == "edgevit-deterministic"
    torch.backends.cudnn.benchmark = not fixed
    step = gpu_step(mode, net, device, precision)
    torch.cuda.reset_peak_memory_stats()
    repeat = deterministic(device) if fixed else contextlib.nullcontext()
    with repeat, at_precision(precision, device):
        for _ in range(GPU_WARMUP_STEPS):
            step(images, labels)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            step(images, labels)
        torch.cuda.synchronize()
    step_s = (time.perf_counter() - start) / steps
    return {
        "step_s": step_s,
        "images_per_s": batch / step_s,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
        "reserved_mib": torch.cuda.max_memory_reserved() / 2**20,
        "captured": step.is_captured,
    }


def gpu_step(mode: str, net, device, precision: str):
    """The product's step without a teacher, captured or not."""
    import torch
    import torch.nn.functional as F

    from edgevit.quantize.step import TrainingStep

    rate = torch.full((), 1e-5, device=device)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, fused=True, capturable=True)

    def gradients(images, labels, share: float):
        loss = F.cross_entropy(net(images), labels)
        (loss * share).backward()
        return loss.detach()

    step = TrainingStep(
        gradients, lambda: None, optimizer.step, optimizer.zero_grad, device, precision
    )
    if mode in ("float", "edgevit-uncaptured", "edgevit-torch", "nncf"):
        step.why_not_captured = "as asked"
    return step


def prepared(mode: str, net, size: int):
    """The net as the mode trains it, with ranges from two noise images."""
    import torch

    from edgevit.graph import trace
    from edgevit.quantize.net import QuantizedNet

    if mode == "float":
        return net
    noise = [torch.randn(1, 3, size, size) for _ in range(2)]
    if mode == "nncf":
        import nncf

        os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        os.environ["NNCF_EXTENSION_LOAD_TIMEOUT"] = "0"
        quantized = nncf.quantize(net, nncf.Dataset(noise), subset_size=len(noise))
        for parameter in quantized.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        return quantized
    graph = trace(net, (3, size, size))
    return QuantizedNet(graph, *observed_quantizers(graph, noise))


def profile(setting: str) -> list[dict[str, float | str]]:
    """Where a step of edgevit's training goes: self CPU time by operator, from torch's profiler."""
    import torch
    import torch.nn.functional as F
    from torch.profiler import ProfilerActivity, profile

    from edgevit.data.batches import channels_last
    from edgevit.models.variants import repvit_m0_9

    size, batch, _ = SETTINGS[setting]
    net = repvit_m0_9(1000, distillation=False).eval().fuse().to(memory_format=torch.channels_last)
    net = prepared("edgevit", net, size).train()
    images = channels_last(torch.randn(batch, 3, size, size))
    labels = torch.randint(1000, (batch,))
    for _ in range(2):
        F.cross_entropy(net(images), labels).backward()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        F.cross_entropy(net(images), labels).backward()
    events = sorted(recorded.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    return [
        {"operator": e.key, "calls": e.count, "share_percent": 100 * e.self_cpu_time_total / total}
        for e in events[:12]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("tf32", "float32"), default="tf32")
    parser.add_argument("--setting", choices=tuple(SETTINGS), help="only this image size")
    parser.add_argument("--one", nargs=2, metavar=("MODE", "SETTING"), help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        if given.one[0] == "edgevit-torch":
            os.environ["EDGEVIT_NO_KERNEL"] = "1"
        on_cpu = given.device == "cpu"
        print(json.dumps(
            one_process(*given.one) if on_cpu else on_gpu(*given.one, given.precision)
        ))  # fmt: skip
        return
    if given.profile:
        print(json.dumps(profile("64px")))
        return
    if given.device == "cuda":
        measure_gpu(given.rounds, given.precision, given.setting)
        return
    before, figures = machine(), {}
    for setting in SETTINGS if given.setting is None else (given.setting,):
        figures[setting] = summary(measured(MODES, setting, given.rounds), SETTINGS[setting])
    figures["profile_64px"] = child("--profile")
    write_result("training", figures, before)


def measured(
    modes: tuple[str, ...], setting: str, rounds: int, *more: str
) -> dict[str, list[dict[str, float]]]:
    """The figures of each mode, the modes in turn; one that fails says why and is left out."""
    runs: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
    for _ in range(rounds):
        for mode in modes:
            try:
                runs[mode].append(child("--one", mode, setting, *more))
            except subprocess.CalledProcessError as error:
                if mode == "float" or not more:
                    raise
                print(setting, mode, "failed:", error.stderr.strip().splitlines()[-1:], flush=True)
                continue
            print(setting, mode, runs[mode][-1], flush=True)
    return {mode: found for mode, found in runs.items() if len(found) == rounds}


def measure_gpu(rounds: int, precision: str, only: str | None) -> None:
    """Every mode on the GPU, whose name stands beside the figures."""
    import torch

    from edgevit.device import chosen_device, device_text

    before = machine() | {"device": device_text(chosen_device("cuda")), "torch": torch.__version__}
    more = ("--device", "cuda", "--precision", precision)
    figures: dict[str, object] = {"precision": precision}
    for setting in GPU_SETTINGS if only is None else (only,):
        runs = measured(GPU_MODES, setting, rounds, *more)
        figures[setting] = summary(runs, GPU_SETTINGS[setting])
    write_result("training_cuda", figures, before)


def child(*arguments: str):
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(
    runs: dict[str, list[dict[str, float]]], setting: tuple[int, int, int]
) -> dict[str, object]:
    """Medians over the rounds, and each mode's ratio to float in the same round."""
    size, batch, steps = setting
    result: dict[str, object] = {"image_size": size, "batch": batch, "timed_steps": steps}
    for mode, found in runs.items():
        entry = {k: statistics.median(r[k] for r in found) for k in found[0]}
        for key in ("images_per_s", "peak_mib", "training_mib", "reserved_mib"):
            if key in entry:
                ratios = [r[key] / f[key] for r, f in zip(found, runs["float"], strict=True)]
                entry[f"{key}_vs_float"] = statistics.median(ratios)
        result[mode] = entry
    return result


if __name__ == "__main__":
    main()
