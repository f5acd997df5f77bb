"""A detector on RepViT: `python -m examples.detector`."""
