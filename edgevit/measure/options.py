"""Options of running an artifact here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgevit.choices import Device, ReportForm
from edgevit.errors import InputError
from edgevit.limits import MAX_CLASSES, MAX_IMAGE_SIZE, MAX_RUN_IMAGES, MAX_THREADS, MAX_WARMUP
from edgevit.options import Size, check, device_option, option
from edgevit.targets import target_names


@dataclass(frozen=True)
class ClassifyOptions:
    """How single images are classified. Raises InputError when a value is out of range."""

    top_k: int = option(
        3, "Classes to print for each image.", minimum=1, maximum=MAX_CLASSES, metavar="K"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ParityOptions:
    """How an artifact is compared with its program. Raises InputError for values out of range."""

    layer_images: int = option(
        32, "Images to compare layer by layer.", minimum=1, maximum=MAX_RUN_IMAGES, metavar="N"
    )
    images: int | None = option(
        None,
        "Images to predict, spread evenly over the set.",
        minimum=1,
        maximum=MAX_RUN_IMAGES,
        metavar="N",
        default_text="all",
    )
    min_agreement: float | None = option(
        None,
        "Gate: percentage of predictions that must equal the program's.",
        minimum=0,
        maximum=100,
        metavar="PERCENT",
        default_text="the target's tolerance, where it states one",
    )
    device: Device = device_option("Device that runs the program")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class BenchmarkOptions:
    """What a benchmark compiles and how often it runs it. Raises InputError for values out of range
    and a target that there is not.

    image_size, seed    of nets that have no program: theirs is the program's
    """

    target: tuple[str, ...] = option(
        ("tflite",),
        "Target to compile each program for; repeat it for several.",
        choices=target_names(),
    )
    precision: tuple[Literal["int8", "float32", "float16"], ...] = option(
        ("int8",), "Precision to compile each program in; repeat it for several."
    )
    image_size: Size = option(
        224,
        "Side of the input, or HEIGHTxWIDTH, of nets that are no program.",
        minimum=32,
        maximum=MAX_IMAGE_SIZE,
        metavar="PX",
    )
    threads: int = option(1, "Threads of the runtime.", minimum=1, maximum=MAX_THREADS, metavar="N")
    rounds: int = option(
        7,
        "Rounds; each runs every artifact once, in an order of its own.",
        minimum=1,
        maximum=1000,
        metavar="N",
    )
    inferences: int = option(
        20,
        "Timed inferences of an artifact in a round; a round's figure is their median.",
        minimum=1,
        maximum=10_000,
        metavar="N",
    )
    warmup: int = option(
        5,
        "Inferences of an artifact in a round before the timing starts.",
        minimum=0,
        maximum=MAX_WARMUP,
        metavar="N",
    )
    data: Path | None = option(
        None,
        "Labelled images to measure the accuracy of programs and artifacts on.",
        metavar="DIR",
        default_text="none: the accuracy that a program has on record",
    )
    limit: int | None = option(
        None,
        "Images of --data to run, spread evenly over the set.",
        minimum=1,
        maximum=MAX_RUN_IMAGES,
        metavar="N",
        default_text="all",
    )
    seed: int = option(
        0, "Seed of random weights and of the order in a round.", minimum=0, below=2**32
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("target", "precision"):
            values = getattr(self, name)
            if not values:
                raise InputError(f"--{name} is missing")
            object.__setattr__(self, name, tuple(dict.fromkeys(values)))
        if self.limit is not None and self.data is None:
            raise InputError("--limit is of the images of --data")


@dataclass(frozen=True)
class ReportOptions:
    """What a report is written as, beside report.json. Raises InputError for an unknown form."""

    format: tuple[ReportForm, ...] = option(
        ("html",),
        "html: report.html, a page; md: report.md, for a pull request; junit: report.xml, a test "
        "case an artifact; repeat it for several.",
    )

    def __post_init__(self) -> None:
        check(self)
