"""A segmenter on RepViT: `python -m examples.segmenter`."""
