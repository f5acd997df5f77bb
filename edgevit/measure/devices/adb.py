"""Android devices reached by `adb`: adb:SERIAL, as `adb devices` lists it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from edgevit.errors import InputError, ToolMissing

# Serial numbers, emulator-5554, 192.168.1.5:5555, adb-XXXX._adb-tls-connect._tcp
_ADDRESS = re.compile(r"adb:(?P<serial>[A-Za-z0-9][A-Za-z0-9._:-]{0,127})")
_REFUSALS = {
    "device unauthorized": "unlock it and allow USB debugging for this computer",
    "no permissions": "this user may not open the USB device; see `adb devices`",
}


@dataclass(frozen=True)
class Adb:
    """The device with one serial number. Needs Android 7 or newer (adb's shell protocol 2)."""

    serial: str

    kind = "adb"
    root = "/data/local/tmp/edgevit-device"  # the one place where the shell user may run programs

    @classmethod
    def parse(cls, text: str) -> Adb:
        """Raises InputError for anything but adb:SERIAL."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise InputError(f"--device {text!r} is not of the form adb:SERIAL (see `adb devices`)")
        return cls(match["serial"])

    @property
    def name(self) -> str:
        return f"adb:{self.serial}"

    def command(self, script: str) -> list[str]:
        program = shutil.which("adb")
        if program is None:
            raise ToolMissing(
                "there is no adb program: apt-get install -y adb, or Android's platform tools"
            )
        # -T: no terminal, so that bytes pass as they are and stderr stays apart.
        return [program, "-s", self.serial, "shell", "-T", script]

    def refusal(self, errors: str) -> str | None:
        return next((advice for sign, advice in _REFUSALS.items() if sign in errors), None)
