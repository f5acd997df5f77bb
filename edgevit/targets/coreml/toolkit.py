"""The one place that imports coremltools, quietly and without the frameworks it looks for."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from edgevit.errors import ToolMissing

_UNUSED = ("tensorflow", "sklearn", "xgboost", "libsvm")
"""Frameworks that coremltools imports if it finds them: seconds of start-up, and warnings."""


def coremltools() -> ModuleType:
    """The coremltools package. Raises ToolMissing when it is not installed."""
    if "coremltools" in sys.modules:
        return sys.modules["coremltools"]
    hidden = [name for name in _UNUSED if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))  # None: an import of it raises ImportError
    try:
        with quiet():
            import coremltools as package
    except ImportError as error:
        raise ToolMissing(
            f"the Core ML target needs coremltools ({error}): pip install 'edgevit[coreml]'"
        ) from error
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
    # It warns of every torch newer than the one it was tested with, and of Apple's own libraries,
    # which no Linux has; the scale audit is what says whether a conversion is right.
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    return package


def empty_spec() -> Any:
    """A Core ML specification without content: protobuf, whose methods no type checker sees."""
    coremltools()
    from coremltools import proto

    return proto.Model_pb2.Model()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, log lines and progress bars of others; errors pass."""
    from tqdm import tqdm

    noisy = [logging.getLogger(name) for name in ("coremltools", "torch.utils._pytree", "torchao")]
    levels = [logger.level for logger in noisy]
    bar, tqdm.__init__ = tqdm.__init__, _silent(tqdm.__init__)
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = bar
        for logger, level in zip(noisy, levels):
            logger.setLevel(level)


def _silent(function: Callable[..., None]) -> Callable[..., None]:
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        function(self, *arguments, **{**options, "disable": True})

    return init
