"""What each process of a torchrun job does in `test_processes`; its answers go to a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import edgevit
from edgevit.data.batches import outputs_of
from edgevit.data.distributed import Group
from edgevit.errors import EdgevitError
from tests.quantize.test_pipeline import tiny


def evaluate(folder: Path, group: Group) -> None:
    """The outputs on 300 images in batches of 64, and on 3, which are fewer batches than two."""
    source, net = edgevit.ImageFolder(folder / "set.tar", size=16), tiny()
    order = list(range(300))[::-1]
    with torch.no_grad():
        for name, chosen in (("many", order), ("few", order[:3])):
            found = outputs_of(net, lambda outputs: outputs, source, chosen, group, name, 64)
            torch.save(found, folder / f"{name}-{group.rank}-{group.size}.pt")


def disagree(folder: Path, group: Group) -> None:
    """A checksum that is one process's own."""
    group.require_same("same", "the weights")
    try:
        group.require_same(f"of {group.rank}", "the weights")
    except EdgevitError as error:
        (folder / f"error-{group.rank}.json").write_text(json.dumps(str(error)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"evaluate": evaluate, "disagree": disagree}[sys.argv[1]](Path(sys.argv[2]), Group())
