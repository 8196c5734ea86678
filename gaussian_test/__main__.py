"""``python -m gaussian_test``: the command line."""

from gaussian_test.cli.commands import main

main(prog_name="python -m gaussian_test")
