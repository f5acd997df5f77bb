"""RepViT's definition under the name by which scripts import it; it lives in edgevit.models."""

from edgevit.models.repvit import (
    RepViT,
    RepViTConfig,
    count_macs,
    count_parameters,
    is_fused,
    skeleton,
    unfused_layers,
)
from edgevit.models.variants import (
    VARIANTS,
    repvit_m0_6,
    repvit_m0_9,
    repvit_m1,
    repvit_m1_0,
    repvit_m1_1,
    repvit_m1_5,
    repvit_m2,
    repvit_m2_3,
    repvit_m3,
    variant_config,
)

__all__ = [
    "VARIANTS", "RepViT", "RepViTConfig", "count_macs", "count_parameters", "is_fused",
    "repvit_m0_6", "repvit_m0_9", "repvit_m1", "repvit_m1_0", "repvit_m1_1", "repvit_m1_5",
    "repvit_m2", "repvit_m2_3", "repvit_m3", "skeleton", "unfused_layers", "variant_config",
]  # fmt: skip
