"""Reading .evq files of schema version 1, which held their graph as torch.export's private schema.

No program is written so any more. The reader leaves the product with edgevit 2.0, or on 2027-12-01,
whichever is later; `edgevit` rewrites a file when it is loaded and saved.
"""

from edgevit.program.v1.evq import unpack_v1

__all__ = ["unpack_v1"]
