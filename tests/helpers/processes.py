"""Start a script on two processes that train together, and end a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["leave", "on_two_processes"]


def on_two_processes(module: str, *arguments: object) -> None:
    """Run a test module as two processes with PyTorch's launcher. Each has one core."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    run = subprocess.run(
        [*launcher, "--nproc-per-node=2", "--module", f"tests.{module}", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,  # far more than it takes on a busy machine
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]


def leave() -> None:
    """End this process once all have reached this line. A normal exit is sometimes aborted by Gloo's threads."""
    import torch

    torch.distributed.barrier()
    os._exit(0)
