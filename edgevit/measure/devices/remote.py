"""One harness run on a device: prepared, started once, followed to its end, fetched, cleaned up.

The run lives on the device apart from the connection, in a folder of its own with a random name:

    artifact/     unpacked                 started       made by whoever starts it, once
    log, rc       its stderr, exit code    harness.pid   to end it when we are interrupted

What the harness is asked for lies in a file, as the images do: the run's command names two files by
their sha256 and nothing else.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
from collections.abc import Callable
from pathlib import Path

from edgevit.errors import EdgevitError
from edgevit.limits import MAX_LOGITS_BYTES, MAX_RESULT_BYTES
from edgevit.measure.devices.base import ConnectionLost, DeviceGone
from edgevit.measure.devices.link import Answer, Link
from edgevit.measure.devices.store import CHECKSUM_SILENCE_S, Blob

log = logging.getLogger(__name__)

# What a run may leave, by its name in the run's folder, and how large each may be.
OUTPUT_LIMITS = {
    "result.json": MAX_RESULT_BYTES,
    "logits": MAX_LOGITS_BYTES,
    "inputs": 64 * 2**30,
    "profile": MAX_RESULT_BYTES,
}
_MAX_LINE_BYTES = 64 * 1024
_VANISHED = 91

_PREPARE = """find runs -mindepth 1 -maxdepth 1 -type d -mtime +1 -exec rm -rf {{}} + 2>/dev/null
mkdir -p runs/{run}/artifact && tar -xf blobs/{artifact} -C runs/{run}/artifact"""

# Lets go of the connection: a session of its own, and no pipe of ours. The exit code appears whole.
_START = """cd runs/{run} || exit 92
mkdir started 2>/dev/null || exit 0
: > log
apart=nohup; command -v setsid >/dev/null 2>&1 && apart=setsid
$apart sh -c '"$@" >/dev/null 2>log </dev/null & echo $! > harness.pid
wait $!; echo $? > rc.new; mv rc.new rc' edgevit {command} </dev/null >/dev/null 2>&1 &
echo $! > pid
i=0
while [ ! -s harness.pid ] && [ $i -lt 50 ]; do
  sleep 0.1 2>/dev/null || sleep 1; i=$((i + 1))
done"""

_FOLLOW = """cd runs/{run} || exit 92
n={offset}
while :; do
  over=; [ -f rc ] && over=yes
  size=$(bytes_of log)
  if [ $size -gt $n ]; then tail -c +$((n + 1)) log | head -c $((size - n)); n=$size; fi
  [ -n "$over" ] && exit 0
  if ! kill -0 "$(cat pid)" 2>/dev/null; then 
    sleep 2
    [ -f rc ] || kill -0 "$(cat pid)" 2>/dev/null || exit 91
  fi
  echo >&2
  sleep 1
done"""

_ENDED = """cd runs/{run} && cat rc && for f in {names}; do
  if [ -f $f ]; then echo "$f $(bytes_of $f) $(sum256 < $f)"; fi
done"""

# A process number may be another's after a restart: ours has the run's folder, where /proc tells.
_CLEAN = """if [ -f runs/{run}/harness.pid ] && [ ! -f runs/{run}/rc ]; then
  p=$(cat runs/{run}/harness.pid); i=0
  is_ours() {{
    kill -0 $p && case $(readlink /proc/$p/cwd) in "" | */runs/{run}) ;; *) false;; esac
  }}
  is_ours && kill $p
  while is_ours && [ $i -lt 5 ]; do sleep 1; i=$((i + 1)); done
  is_ours && kill -9 $p
fi 2>/dev/null
rm -rf runs/{run}"""


def there(blob: Blob) -> Path:
    """The path of a file that was sent, from within a run's folder."""
    return Path("../../blobs") / blob.sha256


class RemoteRun:
    """A run folder on the device; a context manager that removes it, ending what still runs."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.name = secrets.token_hex(8)
        self._left: dict[str, tuple[int, str]] = {}  # what the run wrote: size in bytes, sha256

    def __enter__(self) -> RemoteRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A device that is gone has had its time: once more, not with all the patience again.
        is_gone = kind is not None and issubclass(kind, DeviceGone)
        clean = self.link.once if is_gone else self.link.ask
        try:
            clean(_CLEAN.format(run=self.name))
        except (ConnectionLost, DeviceGone) as error:
            log.warning(
                "%s\nleft there: %s/runs/%s; a run more than a day later removes it",
                error,
                self.link.transport.root,
                self.name,
            )

    def prepare(self, artifact: Blob) -> None:
        """Unpack the artifact (a tar that is there). Raises EdgevitError when that fails."""
        body = _PREPARE.format(run=self.name, artifact=artifact.sha256)
        self._checked(self.link.ask(body), "unpacking the artifact")

    def start(self, harness: Blob, request: Blob) -> None:
        """Start the harness, once however often the connection breaks meanwhile.

        The request's paths are relative to the run's folder: `there` for a file that was sent,
        "artifact", and the names of OUTPUT_LIMITS.
        """
        command = [str(there(harness)), "--request", str(there(request))]
        body = _START.format(run=self.name, command=shlex.join(command))
        self._checked(self.link.ask(body), "starting the harness")

    def follow(self, on_line: Callable[[str], None]) -> int:
        """Pass on the harness's stderr line by line until it ends; its exit code, as a shell's.

        Goes on where it was when the connection broke. Raises EdgevitError when the run vanished.
        """
        received, line = 0, b""

        def take(data: bytes) -> None:
            nonlocal received, line
            received += len(data)
            *whole, line = (line + data).split(b"\n")
            line = line[-_MAX_LINE_BYTES:]
            for each in whole:
                on_line(each.decode(errors="replace"))

        def attempt() -> Answer:
            body = _FOLLOW.format(run=self.name, offset=received)
            return self.link.once(body, on_output=take)

        answer = self.link.insist(attempt, lambda: received)
        if line:
            on_line(line.decode(errors="replace"))
        if answer.code == _VANISHED:
            raise EdgevitError(
                f"{self.link.transport.name}: the run ended without an exit code; was the device "
                "restarted?"
            )
        self._checked(answer, "following the run")
        code, self._left = self._ended()
        return code

    def fetch(self, name: str, out: Path, limit_bytes: int) -> None:
        """After `follow`: fetch one of OUTPUT_LIMITS, checked by its sha256.

        Goes on where it was when the connection broke. Raises EdgevitError when the run left no
        such file, or one over the limit.
        """
        size_bytes, sha256 = self._left.get(name, (0, ""))
        if not 0 < size_bytes <= limit_bytes:
            raise EdgevitError(
                f"{self.link.transport.name}: the run left a {name} of {size_bytes} bytes "
                f"(1 to {limit_bytes} are expected)"
            )
        out.write_bytes(b"")

        def attempt() -> None:
            with open(out, "ab") as file:

                def take(data: bytes) -> None:
                    file.write(data[: max(0, size_bytes - file.tell())])

                body = f"tail -c +{file.tell() + 1} runs/{self.name}/{name}"
                self.link.once(body, on_output=take)
            if out.stat().st_size < size_bytes:
                raise ConnectionLost(f"{name} came cut short")
            if Blob.of(name, out).sha256 != sha256:
                out.write_bytes(b"")
                raise ConnectionLost(f"{name} came with another sha256 and is fetched anew")

        self.link.insist(attempt, lambda: out.stat().st_size)

    def _ended(self) -> tuple[int, dict[str, tuple[int, str]]]:
        """The exit code, and what the run left: name -> (size in bytes, sha256)."""
        body = _ENDED.format(run=self.name, names=" ".join(OUTPUT_LIMITS))
        answer = self.link.ask(body, CHECKSUM_SILENCE_S)
        self._checked(answer, "reading how the run ended")
        code, *rest = answer.output.splitlines() or [""]
        known = "|".join(re.escape(name) for name in OUTPUT_LIMITS)
        rows = [re.fullmatch(rf"({known}) (\d{{1,18}}) ([0-9a-f]{{64}})", row) for row in rest]
        if not re.fullmatch(r"\d{1,3}", code) or None in rows:
            raise EdgevitError(
                f"{self.link.transport.name}: not how a run ends: {answer.output[:200]!r}"
            )
        return int(code), {row[1]: (int(row[2]), row[3]) for row in rows if row}

    def _checked(self, answer: Answer, what: str) -> None:
        if answer.code != 0:
            raise EdgevitError(
                f"{self.link.transport.name}: {what} failed ({answer.code}): "
                f"{os.linesep.join(answer.errors.strip().splitlines()[-5:])}"
            )
