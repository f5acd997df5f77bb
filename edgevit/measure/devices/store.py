"""Files on the device under their sha256: sent once, resumed where a connection broke."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.errors import EdgevitError, InputError
from edgevit.files import sha256_file
from edgevit.measure.devices.base import ConnectionLost
from edgevit.measure.devices.link import Link
from edgevit.progress import Progress

# A large file's checksum on a slow device takes a while, in silence.
CHECKSUM_SILENCE_S = 1800.0
_MIB = 2**20
_WRITE_FAILED, _BUSY, _CUT, _CORRUPT = 96, 97, 98, 99

_PROBE = """for h in {names}; do
  if [ -f blobs/$h ] && [ "$(sum256 < blobs/$h)" = $h ]; then echo "$h there"
  else rm -f blobs/$h; echo "$h missing"; fi
done"""

_SIZE = "if [ -f blobs/{sha256}.part ]; then bytes_of blobs/{sha256}.part; else echo 0; fi"

# One writer a file. The lock of a broken connection may stand for hours, as the far side of a
# network that went away notices nothing: a lock of our own session, of a process that is gone, or
# with nothing written for two minutes is taken over, and its writer ended (if it is one: the
# number may be another process's by now). Whoever lost the lock leaves it alone.
_APPEND = """lock=blobs/{sha256}.lock; part=blobs/{sha256}.part
release() {{ [ "$(cat $lock/owner 2>/dev/null)" = {owner} ] && rm -rf $lock; }}
[ -f $part ] || : > $part
if ! mkdir $lock 2>/dev/null; then
  writer=$(cat $lock/pid 2>/dev/null)
  case $(cat $lock/owner 2>/dev/null) in {session}.*) ours=yes;; *) ours=;; esac
  if [ -z "$ours" ] && kill -0 "$writer" 2>/dev/null && [ -z "$(find $part -mmin +2)" ]; then
    exit 97
  fi
  # The owner first: the script behind that writer gives up its lock when the writer ends.
  echo {owner} > $lock/owner
  case $(readlink "/proc/$writer/fd/1" 2>/dev/null) in */$part) kill -9 "$writer";; esac
fi
echo {owner} > $lock/owner
[ $(bytes_of $part) = {offset} ] || {{ release; exit 97; }}
exec 3<&0
cat <&3 >> $part &
echo $! > $lock/pid
wait $! || {{ release; exit 96; }}
size=$(bytes_of $part)
[ $size -ge {size} ] || {{ release; exit 98; }}
[ $size = {size} ] && [ "$(sum256 < $part)" = {sha256} ] || {{ rm -f $part; release; exit 99; }}
chmod 700 $part && mv -f $part blobs/{sha256} || {{ release; exit 96; }}
release
exit 0"""


@dataclass(frozen=True)
class Blob:
    """A local file that the device needs; `what` names it for the user."""

    what: str
    path: Path
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        # The one word of ours that reaches the device's shell.
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise EdgevitError(f"{self.sha256!r} is not a sha256")

    @classmethod
    def of(cls, what: str, path: Path) -> Blob:
        """Raises InputError when the file cannot be read."""
        if not path.is_file():
            raise InputError(f"{what} {path}: no such file")
        return cls(what, path, sha256_file(path), path.stat().st_size)


def push(link: Link, blobs: Sequence[Blob]) -> None:
    """Send what the device lacks. What was sent before is checked there by its sha256.

    Raises DeviceGone when the connection does not come back, EdgevitError when the device cannot
    write or keeps getting other bytes.
    """
    names = " ".join(dict.fromkeys(blob.sha256 for blob in blobs))
    answer = link.ask(_PROBE.format(names=names), CHECKSUM_SILENCE_S)
    missing = {line.split()[0] for line in answer.output.splitlines() if line.endswith(" missing")}
    for blob in {b.sha256: b for b in blobs if b.sha256 in missing}.values():
        _send(link, blob)


def discard(link: Link, blobs: Sequence[Blob]) -> None:
    """Remove the files from the device."""
    names = " ".join(f"blobs/{b.sha256} blobs/{b.sha256}.part" for b in blobs)
    link.ask(f"rm -rf {names}")


def _send(link: Link, blob: Blob) -> None:
    there_bytes = attempts = 0

    def attempt() -> None:
        nonlocal there_bytes, attempts
        attempts += 1
        there_bytes = _part_bytes(link, blob)
        sent_bytes = there_bytes

        def on_sent(size: int) -> None:
            nonlocal sent_bytes
            sent_bytes += size
            if sent_bytes < blob.size_bytes:
                progress.update(sent_bytes // _MIB)

        with open(blob.path, "rb") as file:
            file.seek(there_bytes)
            script = _APPEND.format(
                sha256=blob.sha256, offset=there_bytes, size=blob.size_bytes, session=link.session,
                owner=f"{link.session}.{attempts}",
            )  # fmt: skip
            answer = link.once(script, send=file, on_sent=on_sent, silence_s=CHECKSUM_SILENCE_S)
        _judge(link, blob, answer.code, answer.errors)

    with Progress(f"send {blob.what}", blob.size_bytes // _MIB + 1, "MiB") as progress:
        link.insist(attempt, lambda: there_bytes)


def _part_bytes(link: Link, blob: Blob) -> int:
    answer = link.once(_SIZE.format(sha256=blob.sha256))
    if not re.fullmatch(r"\d{1,18}\s*", answer.output):
        raise EdgevitError(
            f"{link.transport.name} cannot keep files: {answer.errors.strip() or answer.output!r}"
        )
    # Longer than the file: not its beginning. Offset 0 never fits it, and the far side starts anew.
    size = int(answer.output)
    if size > blob.size_bytes:
        link.once(f"rm -f blobs/{blob.sha256}.part")
        return 0
    return size


def _judge(link: Link, blob: Blob, code: int, errors: str) -> None:
    name = link.transport.name
    if code == 0:
        return
    if code == _BUSY:
        raise ConnectionLost(f"{blob.what}: another transfer of the same file is going on")
    if code == _CUT:
        raise ConnectionLost(f"{blob.what} came cut short")
    if code == _CORRUPT:
        if sha256_file(blob.path) != blob.sha256:
            raise InputError(f"{blob.path} changed while it was sent")
        raise ConnectionLost(f"{blob.what} came with another sha256 and is sent anew")
    what = "could not be written there" if code == _WRITE_FAILED else f"could not be sent ({code})"
    raise EdgevitError(f"{name}: {blob.what} ({blob.size_bytes} bytes) {what}: {errors.strip()}")
