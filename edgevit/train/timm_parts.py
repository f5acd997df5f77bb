"""The parts of the recipe that are timm's: transforms, mixing, parameter groups, schedule, EMA.

timm is an optional extra. Each function imports it, so that importing this module does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from edgevit.data.images import Preprocessing
from edgevit.errors import InputError
from edgevit.models.timm_package import timm_module as imported
from edgevit.train.options import TrainOptions


def timm_module(name: str = "timm") -> Any:
    """timm, or a module of it. Raises ToolMissing where it cannot be imported."""
    return imported(name, "`edgevit train`")


def transform(options: TrainOptions, rules: Preprocessing) -> Callable[[Any], Tensor]:
    """From a PIL image of mode RGB to float32 (3, H, W), changed at random and normalised.

    Raises InputError for a RandAugment policy that timm does not know.
    """
    data = timm_module("timm.data")
    policy = None if options.auto_augment == "none" else options.auto_augment
    try:
        return data.create_transform(
            (3, rules.height, rules.width),
            is_training=True,
            scale=(options.crop_scale, 1.0),
            hflip=options.hflip,
            vflip=options.vflip,
            color_jitter=None if policy else options.color_jitter,
            auto_augment=policy,
            interpolation=rules.interpolation,
            mean=rules.mean,
            std=rules.std,
            re_prob=options.random_erasing,
            re_mode="pixel",
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise InputError(
            f"--auto-augment {options.auto_augment!r} is no policy that timm knows, such as "
            f"rand-m9-mstd0.5-inc1: {error}"
        ) from error


def mixing(options: TrainOptions, classes: int) -> Callable[[Tensor, Tensor], Any] | None:
    """Images and class indices to mixed images and soft targets; None where nothing is mixed."""
    if not (options.mixup or options.cutmix) or not options.mix_share:
        return None
    return timm_module("timm.data").Mixup(
        mixup_alpha=options.mixup,
        cutmix_alpha=options.cutmix,
        prob=options.mix_share,
        label_smoothing=options.label_smoothing,
        num_classes=classes,
    )


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Class indices as (N, classes) with label smoothing, as `mixing` gives them."""
    return timm_module("timm.data.mixup").mixup_target(
        labels, classes, lam=1.0, smoothing=smoothing
    )


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights with decay; norms and biases without."""
    return timm_module("timm.optim").param_groups_weight_decay(net, weight_decay)


def schedule(optimizer: Any, options: TrainOptions, steps: int, steps_an_epoch: float) -> Any:
    """Warm-up, then a cosine, by step."""
    warmup = min(steps // 10, round(options.warmup_epochs * steps_an_epoch))
    return timm_module("timm.scheduler").CosineLRScheduler(
        optimizer,
        t_initial=max(1, steps - warmup),
        lr_min=options.min_lr,
        warmup_t=warmup,
        warmup_lr_init=min(1e-6, options.peak_lr),
        warmup_prefix=True,
        t_in_epochs=False,
    )


def moving_average(net: nn.Module, decay: float) -> Any:
    """timm's ModelEmaV3 of the net; its decay rises to `decay`, so that short runs have one."""
    return timm_module("timm.utils").ModelEmaV3(net, decay=decay, use_warmup=True)


def clip(parameters: Any, factor: float) -> None:
    """Adaptive gradient clipping (arXiv 2102.06171)."""
    timm_module("timm.utils").dispatch_clip_grad(parameters, value=factor, mode="agc")


def pretrained(name: str, classes: int) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """A timm net with trained weights, in eval mode, and the mean and std that it wants.

    timm downloads the weights on first use. Raises InputError for an unknown name, for weights
    that cannot be had, and for a net of other classes.
    """
    timm = timm_module()
    try:
        net = timm.create_model(name, pretrained=True).eval()
    except Exception as error:  # unknown name, no network, no such weights: each its own class
        reason = str(error).partition("\n")[0]
        raise InputError(f"--teacher timm:{name} cannot be had from timm: {reason}") from error
    if net.num_classes != classes:
        raise InputError(
            f"--teacher timm:{name}: it has {net.num_classes} classes, the training images have "
            f"{classes}; a teacher must know the same classes, in the same order"
        )
    config = net.pretrained_cfg
    return net, tuple(config["mean"]), tuple(config["std"])
