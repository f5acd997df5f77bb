"""`edgevit` in a process that can import timm beside a CPU build of torch (see tests.timm_compat).

python -m tests.train.with_timm train --data ...
"""

from __future__ import annotations

import sys

from edgevit.cli import main
from tests.timm_compat import import_timm

if __name__ == "__main__":
    import_timm()
    main(sys.argv[1:])
