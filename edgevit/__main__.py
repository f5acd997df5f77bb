"""`python -m edgevit`, as torchrun starts it."""

from edgevit.cli import main

main()
