"""A `python` whose libraries are imported already: `python -m MODULE ...` runs in a fork of one process that has them.

A whole run of an engine is some forty commands, which would spend most of their time importing torch. Only libraries
are taken from that process: the project's own modules are imported anew, from the folder where the command is called.

No command connects to anything: what tries is refused, and written down in the file `connections` beside the `python`.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = (
    *("cv2", "jinja2", "jsonschema", "lpips", "numpy", "openvino", "pandas", "PIL.Image", "pyarrow.compute"),
    *("pyarrow.parquet", "pytorch_fid.inception", "rich.console", "rich.progress", "safetensors.torch", "scipy.stats"),
    *("skimage.draw", "skimage.metrics", "torch", "torch._dynamo", "torch.utils.flop_counter", "torchvision", "yaml"),
    *("dvc.commands.repro", "dvc.repo", "snakemake.cli"),
)
CALL = """\
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(call)
    answer = server.recv(1)
os._exit(answer[0] if answer else 137)  # none: it was killed
"""


def _watch(record: Path) -> None:
    """Write down who asks for which address, or connects to it, but for sockets that are files; and refuse it."""

    def hook(event: str, arguments: tuple) -> None:
        if event in ("socket.connect", "socket.sendto") and arguments[0].family != socket.AF_UNIX:
            address = arguments[-1]
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            address = arguments[0]
        else:
            return
        with record.open("a") as file:
            file.write(json.dumps([sys.argv[1:], str(address)]) + "\n")
        raise ConnectionRefusedError(f"{event} {address}")

    sys.addaudithook(hook)


def _run(call: socket.socket, python: str) -> None:
    """In the fork: take the caller's files, folder and environment, run its module, answer with the exit status.

    python: for commands that call others.
    """
    size, files, _, _ = socket.recv_fds(call, 8, 3)
    arguments, folder, environment = json.loads(call.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    option, module, *sys.argv[1:] = arguments
    assert option == "-m"
    sys.path[0], sys.executable = folder, python
    _watch(Path(python).with_name("connections"))
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else int(done.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        call.sendall(bytes([status]))
        os._exit(status)


def _reap(*_: object) -> None:
    """Waited for, so that the time they took counts as ours."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(address: str) -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in each fork looks at, and so copies, all that these libraries hold
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(16)
        print("ready", flush=True)
        while True:
            call, _ = server.accept()
            with call:
                if os.fork() == 0:
                    server.close()
                    _run(call, str(Path(address).with_name("python")))


@contextlib.contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Yield an executable that stands for `python` as long as the process that it forks from lives."""
    address = folder / "python.socket"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, str(address)]
    with subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "ready\n"
            (folder / "call.py").write_text(CALL.format(address=str(address)))
            python = folder / "python"
            python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{folder}/call.py" "$@"\n')
            python.chmod(0o755)
            yield python
        finally:
            server.kill()


if __name__ == "__main__":
    serve(sys.argv[1])
