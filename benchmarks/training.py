"""Speed and memory of quantization-aware training against float training of the same fused net.

    python benchmarks/training.py [--rounds 5]

Each mode runs in a process of its own, in turn, `rounds` times: float (the fused net), edgevit
(the QuantizedNet that `edgevit quantize` trains), edgevit-torch (the same without the compiled
kernel) and nncf (the model that nncf.quantize returns, as it comes). A step is forward, loss,
backward and AdamW, without a teacher. Float and edgevit run in channels-last, the faster layout
for both; nncf as well.
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
WARMUP_STEPS = 2


def one_process(mode: str, setting: str) -> dict[str, float]:
    """Time the steps of one mode and read the process's peak memory."""
    if mode == "edgevit-torch":
        os.environ["EDGEVIT_NO_KERNEL"] = "1"
    import torch
    import torch.nn.functional as F

    from edgevit.data.batches import channels_last
    from edgevit.models.repvit import repvit_m0_9

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
    from edgevit.models.repvit import repvit_m0_9

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
    parser.add_argument("--one", nargs=2, metavar=("MODE", "SETTING"), help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one_process(*given.one)))
        return
    if given.profile:
        print(json.dumps(profile("64px")))
        return
    before, figures = machine(), {}
    for setting in SETTINGS:
        runs: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
        for _ in range(given.rounds):
            for mode in MODES:
                runs[mode].append(child("--one", mode, setting))
                print(setting, mode, runs[mode][-1], flush=True)
        figures[setting] = summary(runs, setting)
    figures["profile_64px"] = child("--profile")
    write_result("training", figures, before)


def child(*arguments: str):
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(runs: dict[str, list[dict[str, float]]], setting: str) -> dict[str, object]:
    """Medians over the rounds, and each mode's ratio to float in the same round."""
    size, batch, steps = SETTINGS[setting]
    result: dict[str, object] = {"image_size": size, "batch": batch, "timed_steps": steps}
    for mode, found in runs.items():
        entry = {k: statistics.median(r[k] for r in found) for k in found[0]}
        for key in ("images_per_s", "peak_mib", "training_mib"):
            ratios = [r[key] / f[key] for r, f in zip(found, runs["float"], strict=True)]
            entry[f"{key}_vs_float"] = statistics.median(ratios)
        result[mode] = entry
    return result


if __name__ == "__main__":
    main()
