"""Devices reached by the system's `ssh`: ssh://user@host[:port], or a Host of ~/.ssh/config."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass

from edgevit.errors import InputError, ToolMissing

# No leading "-", nothing that a shell, a ProxyCommand or ssh itself would read as more than a name.
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?:(?P<host>[A-Za-z0-9][A-Za-z0-9_.-]{0,252})|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
# BatchMode: a question for a password would hang, as stdin carries files. Host keys, identities,
# jump hosts and the rest are the user's own ssh configuration.
_OPTIONS = (
    "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15",
    "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
)  # fmt: skip
_REFUSALS = {
    "Permission denied (": "it accepts none of your keys; `ssh-copy-id` gives it one "
    "(passwords are not asked for)",
    "Host key verification failed": "its host key is not known, or another than before; connect "
    "once with ssh by hand and check the key",
    "Could not resolve hostname": "no such host name",
    "Bad configuration option": "ssh cannot read its configuration",
    "Too many authentication failures": "it gave up before your key came; name the key with "
    "IdentityFile and IdentitiesOnly in ~/.ssh/config",
}


@dataclass(frozen=True)
class Ssh:
    """`ssh` to one host. `host` without brackets; `user` and `port` None: as ssh is configured."""

    host: str
    user: str | None = None
    port: int | None = None

    kind = "ssh"
    root = '"${XDG_CACHE_HOME:-$HOME/.cache}/edgevit-device"'

    @classmethod
    def parse(cls, text: str) -> Ssh:
        """Raises InputError for anything but ssh://[user@]host[:port]."""
        match = _ADDRESS.fullmatch(text)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 1 <= port <= 65535):
            raise InputError(f"--device {text!r} is not of the form ssh://user@host[:port]")
        return cls(match["host"] or match["ipv6"], match["user"], port)

    @property
    def name(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")

    def command(self, script: str) -> list[str]:
        program = shutil.which("ssh")
        if program is None:
            raise ToolMissing("there is no ssh program: apt-get install -y openssh-client")
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        # ssh hands one string to the login shell over there, whichever that is; sh gets the script.
        remote = f"exec sh -c {shlex.quote(script)}"
        return [program, *_OPTIONS, *port, *user, "--", self.host, remote]

    def refusal(self, errors: str) -> str | None:
        return next((advice for sign, advice in _REFUSALS.items() if sign in errors), None)
