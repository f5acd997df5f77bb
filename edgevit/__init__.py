"""edgevit: a trained RepViT to validated INT8 artifacts for phones and edge boards.

Importing this package imports no toolkit; each module imports what it needs when it is called.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
