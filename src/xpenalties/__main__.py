"""The entry point of `python -m xpenalties`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from ._command_line.parser import parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: the arguments of the process.

    Returns
    -------
    int
        The exit status: 0, or 1 if something failed or the reader closed the pipe. argparse exits with 2 if arguments
        are wrong.
    """
    args = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may lack a name's characters
    try:
        status: int = args.run(args)
        sys.stdout.flush()  # so that a closed pipe raises here
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
