"""One local process with bytes going in and coming out at the same time, and a limit on silence."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from edgevit.measure.devices.base import ConnectionLost

_CHUNK_BYTES = 64 * 1024
_POLL_S = 0.5
_ERRORS_KEPT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Exchanged:
    """How the process ended, and the end of what it wrote to stderr."""

    code: int
    errors: str


def exchange(
    command: list[str],
    *,
    send: BinaryIO | None,
    on_output: Callable[[bytes], None],
    on_sent: Callable[[int], None],
    silence_s: float,
) -> Exchanged:
    """Run `command`, feeding it the file `send` from its position on, until it ends.

    `on_output` gets stdout as it comes, `on_sent` the number of bytes that the process took.
    Raises ConnectionLost, and kills the process, when for `silence_s` no byte went either way.
    """
    stdin = subprocess.DEVNULL if send is None else subprocess.PIPE
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        try:
            errors = _pump(process, send, on_output, on_sent, silence_s)
            code = process.wait(timeout=silence_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ConnectionLost(f"it did not end within {silence_s:g} s") from error
        except BaseException:
            process.kill()
            raise
    return Exchanged(code, errors.decode(errors="replace"))


def _pump(
    process: subprocess.Popen[bytes],
    send: BinaryIO | None,
    on_output: Callable[[bytes], None],
    on_sent: Callable[[int], None],
    silence_s: float,
) -> bytes:
    assert process.stdout is not None and process.stderr is not None
    errors = b""
    pending = memoryview(b"")
    heard_s = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        if send is not None:
            assert process.stdin is not None
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            ready = selector.select(timeout=_POLL_S)
            if not ready:
                if process.poll() is not None:
                    break  # a child that it left behind, such as ssh's ControlPersist, has the pipe
                if time.monotonic() > heard_s + silence_s:
                    raise ConnectionLost(f"no sign of life for {silence_s:g} s")
                continue
            heard_s = time.monotonic()
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    assert send is not None and process.stdin is not None
                    pending = pending or memoryview(send.read(_CHUNK_BYTES))
                    taken = _write(key.fd, pending)
                    if taken is None or not pending:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                        continue
                    pending = pending[taken:]
                    on_sent(taken)
                elif not (data := os.read(key.fd, _CHUNK_BYTES)):
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    on_output(data)
                else:
                    errors = (errors + data)[-_ERRORS_KEPT_BYTES:]
    return errors


def _write(descriptor: int, data: memoryview) -> int | None:
    """The number of bytes taken; None when nobody reads any more (the exit status says why)."""
    try:
        return os.write(descriptor, data) if data else 0
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return None
