"""Scripts on a device over a connection that may break: tried again, with patience that ends."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from edgevit.measure.devices.base import ConnectionLost, DeviceGone, Transport
from edgevit.measure.devices.exchange import exchange

T = TypeVar("T")

log = logging.getLogger(__name__)

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0)
SILENCE_S = 60.0
MAX_ANSWER_BYTES = 2**20
_BEGIN = b"edgevit-remote-begin\n"
_EXIT = re.compile(r"edgevit-remote-exit (\d{1,3})\r?\n")
# Whatever a login shell's start-up files print comes before the first marker, and only a script
# that ran to its end prints the last: an exit code alone does not tell a failed script from a
# failed connection.
_FRAME = """echo edgevit-remote-begin
umask 077
sum256() {{ if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi | cut -c1-64; }}
bytes_of() {{ echo $(($(wc -c < "$1"))); }}
( mkdir -p {root}/blobs {root}/runs && cd {root} || exit 90
{body}
)
code=$?
echo "edgevit-remote-exit $code" >&2
exit $code
"""  # noqa: E501


@dataclass(frozen=True)
class Answer:
    """What a script said: its exit code, its stdout unless that went elsewhere, its stderr."""

    code: int
    output: str
    errors: str


class Link:
    """One device. `sent_bytes` counts what file transfers handed to the client program."""

    def __init__(self, transport: Transport, backoff_s: Sequence[float] | None = None) -> None:
        self.transport, self.backoff_s = transport, BACKOFF_S if backoff_s is None else backoff_s
        self.session = secrets.token_hex(8)  # names what is ours on the device
        self.sent_bytes = 0
        self._was_reached = False

    def once(
        self,
        body: str,
        *,
        send: BinaryIO | None = None,
        on_output: Callable[[bytes], None] | None = None,
        on_sent: Callable[[int], None] | None = None,
        silence_s: float = SILENCE_S,
    ) -> Answer:
        """Run the lines `body` in the device's folder. Raises ConnectionLost, DeviceGone.

        `body` is a program: it must hold no word that came from a user or a file.
        """
        answer = bytearray()

        def keep(data: bytes) -> None:
            answer.extend(data[: MAX_ANSWER_BYTES - len(answer)])

        def count(size: int) -> None:
            self.sent_bytes += size
            if on_sent is not None:
                on_sent(size)

        script = _FRAME.format(root=self.transport.root, body=body)
        done = exchange(
            self.transport.command(script), send=send, on_output=_after_begin(on_output or keep),
            on_sent=count, silence_s=silence_s,
        )  # fmt: skip
        ends = list(_EXIT.finditer(done.errors))
        if not ends:
            self._refuse_or_lose(done.code, done.errors)
        self._was_reached = True
        before = done.errors[: ends[-1].start()]
        return Answer(int(ends[-1][1]), answer.decode(errors="replace"), before)

    def insist(self, action: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """`action()`, again while it raises ConnectionLost; patience is new when `progress()` grew.

        Raises DeviceGone when patience is over; a device never reached gets one more try only.
        """
        failures, best = 0, progress()
        while True:
            try:
                return action()
            except ConnectionLost as lost:
                if progress() > best:
                    failures, best = 0, progress()
                failures += 1
                patience = len(self.backoff_s) if self._was_reached else 1
                if failures > patience:
                    state = "was lost and did not come back" if self._was_reached else "failed"
                    raise DeviceGone(
                        f"the connection to {self.transport.name} {state}, after {failures} "
                        f"attempts: {lost}"
                    ) from lost
                wait_s = self.backoff_s[failures - 1]
                log.warning("%s: %s; trying again in %g s", self.transport.name, lost, wait_s)
                time.sleep(wait_s)

    def ask(self, body: str, silence_s: float = SILENCE_S) -> Answer:
        """`once`, insisted on: for scripts that may run twice."""
        return self.insist(lambda: self.once(body, silence_s=silence_s))

    def _refuse_or_lose(self, code: int, errors: str) -> None:
        if advice := self.transport.refusal(errors):
            raise DeviceGone(f"{self.transport.name} refuses: {advice}\n{errors.strip()}")
        last = (errors.strip().splitlines() or [f"the client ended with {code}"])[-1]
        raise ConnectionLost(last)


def _after_begin(on_output: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Passes on what follows the first marker."""
    before = bytearray()
    has_begun = False

    def take(data: bytes) -> None:
        nonlocal has_begun
        if has_begun:
            on_output(data)
            return
        before.extend(data)
        start = before.find(_BEGIN)
        if start >= 0:
            has_begun = True
            on_output(bytes(before[start + len(_BEGIN) :]))
        elif len(before) > MAX_ANSWER_BYTES:
            raise ConnectionLost("the far side prints without end before it runs anything")

    return take
