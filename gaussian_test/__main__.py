"""Command line as ``python -m gaussian_test``."""

from gaussian_test.cli.commands import main

main(prog_name="python -m gaussian_test")
