"""RepViT: its definition, reading and recognising its checkpoints, and fusing with a proof."""
