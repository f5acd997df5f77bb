"""Where and how long work runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgevit.choices import Device, Precision
from edgevit.options import check, device_option, option

MAX_CPU_THREADS = 1024


@dataclass(frozen=True)
class MachineOptions:
    """Where and how a training or a fine-tuning runs. Its result depends on `precision`, and on the
    number of threads and processes, which add sums in another order.

    Raises InputError when a value is out of range.
    """

    threads: int | None = option(
        None,
        "CPU threads to use.",
        minimum=1,
        maximum=MAX_CPU_THREADS,
        metavar="N",
        default_text="all cores",
    )
    device: Device = device_option("Device that calibrates, trains and evaluates")
    precision: Precision = option(
        "tf32",
        "Precision of the training's products on CUDA: tf32 is faster, float32 exact.",
    )
    snapshot_interval_s: float = option(
        60.0,
        "Seconds between saved states, the most work that an interrupted run loses.",
        minimum=0,
        maximum=1e6,
        metavar="S",
        cli_name="snapshot-interval",
    )
    fresh: bool = option(False, "Discard the state of an interrupted run.")
    tensorboard: Path | None = option(
        None,
        "Folder for TensorBoard's curves of the training; needs edgevit[tensorboard].",
        metavar="DIR",
        default_text="none",
    )
    workers: int | None = option(
        None,
        "Processes that decode images, for each that trains; 0 decodes in that one.",
        minimum=0,
        maximum=MAX_CPU_THREADS,
        metavar="N",
        default_text="the cores, where the set is large",
    )
    resume_with_processes: bool = option(
        False, "Go on with the state of a run of another number of processes."
    )

    def __post_init__(self) -> None:
        check(self)

    def settings(self) -> dict[str, Any]:
        """By name, all that a function is given: threads are the process's own."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        del own["threads"]
        return own
