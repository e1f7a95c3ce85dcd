"""Start scripts as processes that work together, and end such a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = [
    "leave",
    "on_devices_of_jax",
    "on_processes",
    "on_processes_of_jax",
    "run_together",
    "simulated_devices",
    "torch_launcher",
]

ROOT = Path(__file__).parents[2]
SECONDS = 1200  # far more than anything takes on a busy machine
SHOWN = 4000  # characters of an output
#: For small arrays, compiling takes far longer than running. These flags change how a device's program is made into
#: machine code, not how XLA cuts it over devices.
COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def run_together(commands: Sequence[Sequence[object]], **environment: str) -> list[str]:
    """Run commands at the same time, each with one core, and return what they print.

    If one fails, the others are killed, because they may wait for it. If they hang, all are killed.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with TemporaryDirectory() as folder:
        files = [(Path(folder, f"{i}.out"), Path(folder, f"{i}.err")) for i in range(len(commands))]
        runs = []
        for command, (out, err) in zip(commands, files, strict=True):
            with out.open("wb") as stdout, err.open("wb") as stderr:
                arguments = [str(argument) for argument in command]
                run = subprocess.Popen(
                    arguments, cwd=ROOT, env=env, stdout=stdout, stderr=stderr, start_new_session=True
                )
            runs.append(run)
        end = time.monotonic() + SECONDS
        try:
            while any(run.poll() is None for run in runs) and not any(run.returncode for run in runs):
                time.sleep(0.05)
                if time.monotonic() > end:
                    break
        finally:
            codes = [run.poll() for run in runs]
            for run in runs:
                with suppress(ProcessLookupError):  # it has ended
                    os.killpg(run.pid, signal.SIGKILL)
                run.wait()
        outputs, errors = ([file.read_text("utf-8", "replace") for file in kind] for kind in zip(*files, strict=True))
    shown = "\n".join(
        f"process {i}: {'killed' if code is None else code}\n{error[-SHOWN:]}"
        for i, (code, error) in enumerate(zip(codes, errors, strict=True))
    )
    assert codes == [0] * len(codes), shown
    return outputs


def torch_launcher(count: int) -> list[str]:
    """Return the command that starts a script as several processes of PyTorch on this machine."""
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    return [*launcher, f"--nproc-per-node={count}"]


def on_processes(count: int, module: str, *arguments: object) -> None:
    """Run a test module as several processes of PyTorch."""
    run_together([[*torch_launcher(count), "--module", f"tests.{module}", *arguments]])


def on_processes_of_jax(count: int, module: str, *arguments: object) -> None:
    """Run a test module as processes of JAX. Each gets its rank and the coordinator's address before `arguments`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", f"tests.{module}"]
    run_together([[*command, rank, address, *arguments] for rank in range(count)], JAX_PLATFORMS="cpu")


def on_devices_of_jax(count: int, module: str, *arguments: object) -> str:
    """Run a test module as one process of JAX with several simulated devices. Returns what it prints."""
    command = [sys.executable, "-m", f"tests.{module}", *arguments]
    environment = simulated_devices(count)
    environment["XLA_FLAGS"] += f" {COMPILE_FAST}"
    return run_together([command], **environment)[0]


def simulated_devices(count: int) -> dict[str, str]:
    """Return the environment for a process of JAX with several devices on the CPU.

    A device that waits for another for 40 seconds would end the process. On a busy machine, it may have to.
    """
    flags = f"--xla_force_host_platform_device_count={count}"
    flags += f" --xla_cpu_collective_call_terminate_timeout_seconds={SECONDS}"
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_cpu_collective_call_warn_stuck_timeout_seconds={SECONDS}",
    }


def leave() -> None:
    """End this process once all have reached this line. A normal exit is sometimes aborted by Gloo's threads."""
    import torch

    torch.distributed.barrier()
    os._exit(0)
