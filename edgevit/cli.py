"""The `edgevit` command: it gathers the commands and turns errors into messages and exit codes.

Exit codes: 0 done, 1 internal error, 2 bad usage or input, 3 gate failed, 4 toolkit or device
missing, 130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys

import click

from edgevit import __version__
from edgevit.console import say
from edgevit.errors import EdgevitError, InputError, Interrupted
from edgevit.progress import to_standard_error

COMMANDS = (
    "train", "inspect", "fuse", "quantize", "compile", "run", "parity", "validate",
    "benchmark", "report", "package", "lint", "doctor", "demo",
)  # fmt: skip


class LazyGroup(click.Group):
    """A group that imports a command's module on first use; `edgevit --help` loads no toolkit."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"edgevit.commands.{cmd_name}")
        return getattr(module, f"{cmd_name}_command")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgevit")
def cli() -> None:
    """Turn a trained RepViT into INT8 artifacts, each with a proof of its accuracy.

    \b
    train → inspect → fuse → quantize → compile → parity, validate → report → package
    `edgevit demo` runs these steps on an embedded example.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # A polite kill, or a terminal that goes, cleans up as Ctrl-C does; `nohup` keeps a run going.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what its encoding does not
            stream.reconfigure(errors="backslashreplace")
    to_standard_error()
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    """The exit code."""
    try:
        cli.main(arguments, prog_name="edgevit", standalone_mode=False)
        sys.stdout.flush()
    except EdgevitError as error:
        say(f"edgevit: {error}", error=True)
        return error.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue().rstrip("\n"), error=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # click makes an Abort of a KeyboardInterrupt.
        found = error if isinstance(error, Interrupted) else error.__cause__
        say(f"edgevit: {found if isinstance(found, Interrupted) else 'interrupted'}", error=True)
        return 130
    except BrokenPipeError:
        _drop_output()  # its reader has gone
        return 1
    except OSError as error:
        # A full disk, a folder without permission, a name that is too long: not edgevit's fault.
        where = (
            f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        )
        say(f"edgevit: {where}{error.strerror or error}", error=True)
        _drop_output()
        return InputError.exit_code
    return 0


def _drop_output() -> None:
    """Send the rest of standard output nowhere: flushing at exit would raise once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
