"""How `--device` is written."""

from __future__ import annotations

import pytest

from edgevit.errors import InputError
from edgevit.measure.devices import open_device
from edgevit.measure.devices.adb import Adb
from edgevit.measure.devices.ssh import Ssh


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://pi@board", Ssh("board", "pi")),
        ("ssh://board.local:2222", Ssh("board.local", None, 2222)),
        ("ssh://u@[fe80::1]:22", Ssh("fe80::1", "u", 22)),
        ("adb:emulator-5554", Adb("emulator-5554")),
        ("adb:192.168.1.5:5555", Adb("192.168.1.5:5555")),
        ("local", None),
    ],
)
def test_an_address_is_read_and_written(text, expected):
    assert open_device(text) == expected
    assert expected is None or expected.name == text


@pytest.mark.parametrize(
    "text",
    [
        "ssh://-oProxyCommand=id@h", "ssh://u@-oProxyCommand=id", "ssh://u@h;id", "ssh://u@$(id)",
        "ssh://u@h h", "ssh://u@h:0", "ssh://u@h:65536", "ssh://u@h:22:23", "ssh://u@h/x", "ssh://",
        "ssh://u@h\n", "ssh://`id`@h", "ssh:h", "adb:", "adb:-s", "adb:a b", "adb:a;id",
        "adb:$(id)", "adb:a\n", "usb", "", "LOCAL", "ssh://u@h%h", "ssh://é@h",
    ],
)  # fmt: skip
def test_another_address_is_refused(text):
    with pytest.raises(InputError, match="--device"):
        open_device(text)


def test_nothing_in_front_of_the_host_can_be_an_option(sshd):
    command = Ssh("board", "pi", 2222).command("true")
    assert command[command.index("--") + 1 :] == ["board", "exec sh -c true"]
    assert "BatchMode=yes" in command and command[command.index("-l") + 1] == "pi"
