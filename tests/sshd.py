"""A real sshd of the test's own on 127.0.0.1, and a TCP proxy before it that breaks connections."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

SSHD = "/usr/sbin/sshd"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Proxy:
    """Forwards to a port until told otherwise; counts the bytes that clients send.

    cut_after   break each connection once clients have sent so many bytes in all; None: never
    refusing    take no connection
    half_open   break the client's side only, as a network that goes away: the server sees nothing
    """

    def __init__(self, port: int) -> None:
        self.target, self.sent_bytes, self.connections = port, 0, 0
        self.cut_after: int | None = None
        self.refusing = self.half_open = False
        self._near: set[socket.socket] = set()
        self._far: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Break every connection that is open."""
        for each in [*self._near, *([] if self.half_open else self._far)]:
            with_reset = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, with_reset)
                each.shutdown(socket.SHUT_RDWR)
        self._near.clear()
        if not self.half_open:
            self._far.clear()

    def close(self) -> None:
        self.refusing = True
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                near.close()
                continue
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self.target))
            self._near.add(near)
            self._far.add(far)
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_client:
                    self.sent_bytes += len(data)
                sink.sendall(data)
                if self.cut_after is not None and self.sent_bytes >= self.cut_after:
                    self.cut_after = None
                    self.drop()
        except OSError:
            pass
        near, far = (source, sink) if is_client else (sink, source)
        self._near.discard(near)
        if not self.half_open:
            self._far.discard(far)
        for each in (near,) if self.half_open else (near, far):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Sshd:
    """sshd with temporary keys; what it runs keeps its files below `far`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.far = folder, folder / "far" / "edgevit-device"
        (folder / "far").mkdir(parents=True)
        for name in ("host", "user", "stranger"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
        shutil.copy(folder / "user.pub", folder / "authorized")
        port = _free_port()
        (folder / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n"
            f"PermitRootLogin prohibit-password\nSetEnv XDG_CACHE_HOME={folder}/far\n"
        )
        if os.geteuid() == 0:  # Debian's start script makes it; sshd looks for it
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.process = subprocess.Popen(
            [SSHD, "-D", "-E", folder / "sshd.log", "-f", folder / "sshd_config"]
        )
        self._wait_for(port)
        self.proxy = Proxy(port)
        host_key = " ".join((folder / "host.pub").read_text().split()[:2])
        (folder / "known").write_text(f"edgevit-test {host_key}\n")
        self.use_key("user")
        program = shutil.which("ssh")
        (folder / "bin").mkdir()
        wrapper = folder / "bin" / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {program} -F {folder}/ssh_config "$@"\n')
        wrapper.chmod(0o755)

    @property
    def address(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.proxy.port}"

    def use_key(self, name: str) -> None:
        (self.folder / "ssh_config").write_text(
            f"Host *\n  IdentityFile {self.folder}/{name}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.folder}/known\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n  HostKeyAlias edgevit-test\n  IdentityAgent none\n"
        )

    def sessions(self) -> list[int]:
        """The processes that sshd has forked, one or more a connection."""
        found, todo = [], [self.process.pid]
        while todo:
            parent = todo.pop()
            for task in Path(f"/proc/{parent}/task").glob("*/children"):
                children = [int(pid) for pid in task.read_text().split()]
                names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
                mine = [pid for pid in children if names[pid] == "sshd"]
                found += mine
                todo += mine
        return found

    def kill_sessions(self) -> None:
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def blobs(self) -> set[str]:
        return {p.name for p in (self.far / "blobs").iterdir()}

    def runs(self) -> list[Path]:
        return list((self.far / "runs").iterdir())

    def close(self) -> None:
        self.proxy.close()
        self.kill_sessions()
        self.process.terminate()
        self.process.wait(timeout=20)

    def _wait_for(self, port: int) -> None:
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        log = (self.folder / "sshd.log").read_text()
        self.process.kill()
        pytest.fail(f"sshd did not start: {log}")


def start_sshd(folder: Path) -> Sshd:
    """Skips the test where OpenSSH's server or client is not installed."""
    if not os.access(SSHD, os.X_OK) or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        pytest.skip("no OpenSSH here: apt-get install -y openssh-server openssh-client")
    return Sshd(folder)
