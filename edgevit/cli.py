"""The `edgevit` command: it gathers the commands and turns errors into messages and exit codes.

Exit codes: 0 done, 1 internal error, 2 bad usage or input, 3 gate failed, 4 toolkit or device
missing, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

import click

from edgevit import __version__
from edgevit.errors import EdgevitError
from edgevit.progress import to_standard_error

COMMANDS = (
    "inspect", "fuse", "quantize", "compile", "run", "parity", "validate", "report", "package",
    "lint", "doctor", "demo",
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
    inspect → fuse → quantize → compile → parity, validate → report → package
    `edgevit demo` runs these steps on an embedded example.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # A polite kill cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    to_standard_error()
    try:
        cli.main(arguments, prog_name="edgevit", standalone_mode=False)
    except EdgevitError as error:
        click.echo(f"edgevit: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("edgevit: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone; flushing at exit would raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
