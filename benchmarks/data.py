"""What reading images costs: images/s against workers, and the start against the set's size.

    python benchmarks/data.py [--workers 0 1 2] [--rounds 3] [--entries 100000 1000000] [--work DIR]

Reading: JPEGs of 500x375 pixels in a tar, each decoded, resized to 256, cropped to 224, flipped and
normalised, in batches of 32, none kept in memory; the workers' start is measured apart. The numbers
of workers take turns in each round. Start: generated sets of tiny JPEGs, 1,000 classes, as a folder
and as a tar, each in a process of its own, without and with what an earlier run kept: seconds until
the index, its sha256 and the split are there, and until every image was looked at, the first line
of progress, peak memory of the process and how much of it the imports take. A million entries take
4 GB of disk in --work, which are removed, and minutes to generate.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_result

BATCH, SIZE, RESIZE = 32, 224, 256
PICTURES, WARM_BATCHES = 256, 4
CLASSES = 1000


def photo(seed: int) -> bytes:
    """A JPEG of smooth noise, some 40 KB."""
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 256, (47, 63, 3), np.uint8)
    image = Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def reading(workers: int, tar: Path, seconds: float) -> dict[str, float]:
    """Images/s of this process with so many workers, and the time to the first batch."""
    from edgevit.data import source as source_module
    from edgevit.data.batches import training_batches
    from edgevit.data.distributed import Group
    from edgevit.data.source import ImageFolder

    source_module.CACHE_BYTES = 1
    source = ImageFolder(tar, size=SIZE, resize=RESIZE)
    group = Group.alone(workers=workers)
    began = time.perf_counter()
    batches = training_batches(source, range(PICTURES), range(10**6), BATCH, 0, "flip", group)
    next(batches)
    first_s = time.perf_counter() - began
    for _ in range(WARM_BATCHES + 2 * workers):  # what was made before anybody asked
        next(batches)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        next(batches)
        count += BATCH
    took_s = time.perf_counter() - began
    batches.close()
    return {"images_per_s": count / took_s, "first_batch_s": first_s}


def tiny(number: int, base: bytes) -> bytes:
    """A JPEG that differs from the others in a comment, and in its size from most."""
    text = b"%07d" % number + b"x" * (number % 97)
    return base[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + base[2:]


def members(count: int) -> Iterator[tuple[str, bytes]]:
    """(name, data) of the entries of a generated set."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (128, 0, 0)).save(buffer, "JPEG")
    for number in range(count):
        name = f"n{number // (count // CLASSES):08d}"
        yield f"{name}/{name}_{number}.JPEG", tiny(number, buffer.getvalue())


def write_set(form: str, count: int, path: Path) -> None:
    """Generate it, as if it had been there for an hour."""
    if form == "folder":
        for name, data in members(count):
            file = path / name
            if number_of(name) % (count // CLASSES) == 0:
                file.parent.mkdir(parents=True)
            file.write_bytes(data)
        return
    with path.open("wb") as file:
        for name, data in members(count):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.write(member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        file.write(bytes(1024))
    os.utime(path, (time.time() - 3600,) * 2)


def number_of(name: str) -> int:
    return int(name.partition("_")[2].partition(".")[0])


def start(path: Path) -> dict[str, float]:
    """Of this process: seconds since the imports, and memory in MiB."""
    from edgevit.data.batches import split
    from edgevit.data.soundness import damaged_images
    from edgevit.data.source import ImageFolder

    class FirstLine(logging.Handler):
        at_s = 0.0

        def emit(self, record: logging.LogRecord) -> None:
            self.at_s = self.at_s or time.perf_counter() - began

    handler = FirstLine()
    logging.getLogger("edgevit").addHandler(handler)
    logging.getLogger("edgevit").setLevel(logging.INFO)
    imports_mib = peak_mib()
    began = time.perf_counter()
    source = ImageFolder(path, size=SIZE)
    found = {"index_s": time.perf_counter() - began}
    assert len(source.sha256) == 64
    split(len(source), 0.1, 0)
    found["index_sha256_split_s"] = time.perf_counter() - began
    found["peak_mib"] = peak_mib()
    assert not damaged_images(source.images)
    found["looked_at_all_s"] = time.perf_counter() - began
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    return found | {
        "cpu_s": cpu.ru_utime + cpu.ru_stime,
        "peak_with_looking_mib": peak_mib(),
        "imports_mib": imports_mib,
        "first_progress_s": handler.at_s,
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(*arguments: object, cache: Path | None = None) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


def all_reading(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    tar = work / "photos.tar"
    with tarfile.open(tar, "w") as archive:
        for i in range(PICTURES):
            data = photo(i)
            member = tarfile.TarInfo(f"c{i % 2}/{i}.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    runs: dict[int, list[dict[str, float]]] = {workers: [] for workers in given.workers}
    for _ in range(given.rounds):
        for workers in given.workers:
            runs[workers].append(child("--read", workers, tar, given.seconds))
            print(workers, "workers", runs[workers][-1], flush=True)
    first = runs[given.workers[0]]
    return {
        str(workers): {key: statistics.median(run[key] for run in found) for key in found[0]}
        | {
            f"ratio_to_{given.workers[0]}": statistics.median(
                run["images_per_s"] / other["images_per_s"]
                for run, other in zip(found, first, strict=True)
            )
        }
        for workers, found in runs.items()
    }


def all_starts(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for count in given.entries:
        for form in ("folder", "tar"):
            path, cache = work / f"{form}-{count}", work / f"cache-{form}-{count}"
            write_set(form, count, path)
            time.sleep(3)  # or its files are too fresh to be kept
            first = child("--start", path, cache=cache)
            again = child("--start", path, cache=cache)
            figures[f"{form} {count}"] = {"first": first, "again": again}
            print(form, count, figures[f"{form} {count}"], flush=True)
            shutil.rmtree(path) if form == "folder" else path.unlink()
            shutil.rmtree(cache)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--entries", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--work", type=Path, help="where the sets are generated; default: /tmp")
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        workers, tar, seconds = given.read
        print(json.dumps(reading(int(workers), Path(tar), float(seconds))))
        return
    if given.start:
        print(json.dumps(start(given.start)))
        return
    before = machine()
    with tempfile.TemporaryDirectory(dir=given.work, prefix="edgevit-data-") as folder:
        figures = {"reading_224px": all_reading(given, Path(folder))}
        figures["start"] = all_starts(given, Path(folder))
    write_result("data", figures, before)


if __name__ == "__main__":
    main()
