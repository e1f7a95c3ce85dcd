"""Start a script on several processes that work together, and end a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

__all__ = ["both_processes_of_jax", "leave", "on_processes", "on_two_processes"]


def on_processes(count: int, module: str, *arguments: object) -> None:
    """Run a test module as several processes with PyTorch's launcher. Each has one core. If they hang, all are killed.

    A process that ends with an error ends the others.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    run = subprocess.Popen(
        [*launcher, f"--nproc-per-node={count}", "--module", f"tests.{module}", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, error = run.communicate(timeout=600)  # more than it takes on a busy machine
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        raise
    assert run.returncode == 0, error[-4000:]


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


def both_processes_of_jax(module: str, *arguments: object) -> None:
    """Run a test module as two processes of JAX. It gets its rank and the coordinator's address before `arguments`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", f"tests.{module}"]
    runs = [
        subprocess.Popen(
            [*command, str(rank), address, *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [run.communicate(timeout=1200)[1] for run in runs]  # far more than it takes on a busy machine
    assert [run.returncode for run in runs] == [0, 0], "\n".join(errors)[-4000:]


def leave() -> None:
    """End this process once all have reached this line. A normal exit is sometimes aborted by Gloo's threads."""
    import torch

    torch.distributed.barrier()
    os._exit(0)
