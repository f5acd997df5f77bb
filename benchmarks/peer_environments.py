"""The peers: which there are, the environment of each, and one run of a peer's program.

A peer is one file of `benchmarks/peers/`, which is run by the Python of an environment of its own
and imports nothing of edgevit. It says by constants what it is:

    TITLE         for the table
    REQUIREMENTS  ("package==version", …) that its environment is made of; peers with the same ones
                  share it
    FORMAT        ending of the artifact's name: "tflite" or "onnx"
    SCALES        "calibrates anew", or "given": it is handed a program's scales
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "peers"
CONSTANTS = ("TITLE", "REQUIREMENTS", "FORMAT", "SCALES")
MARKER = "requirements.txt"
"""In an environment that is whole."""
LONGEST_REASON = 300


class NotRun(Exception):
    """Why a peer has no figures, in one line."""


@dataclass(frozen=True)
class Peer:
    """A peer's program and what it says of itself."""

    program: Path
    title: str
    requirements: tuple[str, ...]
    format: str
    scales: str

    @property
    def name(self) -> str:
        return self.program.stem

    @classmethod
    def of(cls, program: Path) -> Peer:
        """Reads the constants; nothing is run. Raises ValueError where one is missing."""
        found = {}
        for statement in ast.parse(program.read_text()).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
                if name in CONSTANTS:
                    found[name] = ast.literal_eval(statement.value)
        if missing := [name for name in CONSTANTS if name not in found]:
            raise ValueError(f"{program.name} lacks {', '.join(missing)}")
        return cls(program, *(found[name] for name in CONSTANTS))


def peers(folder: Path = FOLDER) -> list[Peer]:
    """Every peer of a folder by name; a file whose name begins with "_" is a helper."""
    return [Peer.of(path) for path in sorted(folder.glob("[!_]*.py"))]


def environment(peer: Peer, envs: Path) -> Path:
    """The Python of a peer's environment, which is made where it is not there yet.

    Raises NotRun where it cannot be made.
    """
    text = "\n".join(peer.requirements)
    folder = envs.resolve() / hashlib.sha256(text.encode()).hexdigest()[:12]
    python = folder / "bin" / "python"
    if (folder / MARKER).exists():
        return python
    if (folder / "pyvenv.cfg").exists():  # of a run that was cut short
        shutil.rmtree(folder)
    print(f"{peer.name}: installing {' '.join(peer.requirements)}", flush=True)
    _run([sys.executable, "-m", "venv", str(folder)], "no environment", envs)
    command = [str(python), "-m", "pip", "install", "-q", "--no-compile", *peer.requirements]
    _run(command, "its environment cannot be made", envs)
    (folder / MARKER).write_text(text + "\n")
    return python


def make_artifact(
    peer: Peer,
    inputs: dict[str, Path],
    key: str,
    *,
    envs: Path,
    work: Path,
    threads: int,
    timeout_s: float,
) -> tuple[Path, dict[str, Any]]:
    """A peer's artifact and its program's answer; those of an earlier run with the same key.

    key     names what the peer was given
    Raises NotRun where the environment or the program fails.
    """
    python = environment(peer, envs)
    folder = work.resolve() / peer.name
    folder.mkdir(parents=True, exist_ok=True)
    out, answer = folder / f"model.{peer.format}", folder / "answer.json"
    helpers = sorted(peer.program.parent.glob("_*.py"))
    digest = hashlib.sha256(key.encode())
    for path in (peer.program, *helpers):
        digest.update(path.read_bytes())
    made_of, known = digest.hexdigest(), folder / "made_of"
    if known.exists() and known.read_text() == made_of:
        return out, json.loads(answer.read_text())
    for path in (known, out, answer):
        path.unlink(missing_ok=True)
    job = {
        "inputs": {name: str(path.resolve()) for name, path in inputs.items()},
        "out": str(out),
        "answer": str(answer),
        "requirements": peer.requirements,
    }
    (folder / "job.json").write_text(json.dumps(job))
    print(f"{peer.name}: quantizing", flush=True)
    command = [str(python), str(peer.program.resolve()), str(folder / "job.json")]
    _run(command, "its program failed", folder, threads, timeout_s)
    if not out.exists() or not answer.exists():
        raise NotRun("its program ended without an artifact")
    known.write_text(made_of)
    return out, json.loads(answer.read_text())


def _run(
    command: list[str], what: str, logs: Path, threads: int = 1, timeout_s: float | None = None
) -> None:
    """A command in an environment without our packages. Raises NotRun with its last line."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    more = {
        "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2",
    }  # fmt: skip
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "log.txt"
    with log.open("w") as file:
        try:
            done = subprocess.run(
                command, env=kept | more, cwd=logs, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, timeout=timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise NotRun(f"{what}: it took over {timeout_s:g} s") from error
        except OSError as error:
            raise NotRun(f"{what}: {error.strerror}") from error
    if done.returncode:
        raise NotRun(f"{what}, exit code {done.returncode}: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(("WARNING", "[notice]"))]
    errors = [line for line in said if "rror" in line]
    return (errors or said or ["it said nothing"])[-1][:LONGEST_REASON]
