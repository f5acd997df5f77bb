"""What a way to reach a device is: something that turns a shell script into a local command."""

from __future__ import annotations

from typing import Protocol

from edgevit.errors import ToolMissing


class ConnectionLost(Exception):
    """The far side did not answer to the end. Worth another try; never leaves this package."""


class DeviceGone(ToolMissing):
    """The device cannot be reached, or not any more. The message says what was tried."""


class Transport(Protocol):
    """Runs scripts on a device. Which bytes, how often and in which order is `Link`'s matter.

    kind   "ssh" or "adb": all that a result says of the device's address
    name   as the user wrote it, for messages
    root   the folder on the device, as a word of POSIX shell (it may hold $HOME)
    """

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> str: ...

    def command(self, script: str) -> list[str]:
        """The argv that runs `script` in the device's sh, with stdin, stdout, stderr as pipes.

        Raises ToolMissing when the client program is not installed.
        """
        ...

    def refusal(self, errors: str) -> str | None:
        """What to tell the user when the client's stderr says that trying again is no use."""
        ...
