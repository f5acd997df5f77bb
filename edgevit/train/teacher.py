"""The teacher of a training: a net of timm's, a RepViT checkpoint, or the user's own function."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgevit.data.batches import weights_channels_last
from edgevit.data.images import Preprocessing
from edgevit.models.named import TIMM_PREFIX, is_timm
from edgevit.quantize.distill import Teacher, check_teacher, load_teacher
from edgevit.tasks.classification import TASK
from edgevit.train.timm_parts import pretrained


class _Renormalised(nn.Module):
    """A net that wants other means and deviations than the images it is given have."""

    factor: Tensor
    offset: Tensor

    def __init__(
        self,
        net: nn.Module,
        rules: Preprocessing,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.net = net
        own = [torch.tensor(v).view(1, -1, 1, 1) for v in (rules.mean, rules.std, mean, std)]
        self.register_buffer("factor", own[1] / own[3])
        self.register_buffer("offset", (own[0] - own[2]) / own[3])

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images * self.factor + self.offset)


def teacher_of(
    name: str | None, rules: Preprocessing, classes: int, device: torch.device
) -> Teacher | None:
    """The teacher of that name, frozen; None without a name.

    name    "timm:regnety_160.deit_in1k", a RepViT checkpoint, or "module:function"
    Raises InputError when it cannot be had, or does not give (N, classes).
    """
    if name is None:
        return None
    if is_timm(name):
        net, mean, std = pretrained(name.removeprefix(TIMM_PREFIX), classes)
        taught: Teacher = _frozen(_Renormalised(net, rules, mean, std), device)
    else:
        taught = load_teacher(name, nn.Identity(), device)
    image = (len(rules.mean), rules.height, rules.width)
    check_teacher(taught, image, [(1, classes)], TASK.kept, device)
    return taught


def _frozen(net: nn.Module, device: torch.device) -> nn.Module:
    return weights_channels_last(copy.deepcopy(net).eval().requires_grad_(False).to(device))
