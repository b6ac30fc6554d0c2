"""A job in several processes of this machine, as `gpus` of its settings asks for: torchrun starts and ends them."""

import logging
import os

from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.core.graph import Job


def require(job: Job) -> None:
    """Raises UserError unless each process has a GPU, or all of them share the CPU."""
    import torch

    device = job.settings.get("device", "auto")
    if device == "cpu":
        return
    asked = f"{layout.PARAMS}: gpus is {job.processes} for {job}"
    if ":" in device:
        raise UserError(f"{asked}, and device is {device}, one of them; set device to cuda")
    there = torch.cuda.device_count()
    if there < job.processes:
        counted = f"{there or 'no'} GPU{'s' * (there > 1)}"
        raise UserError(f"{asked}, and this machine has {counted}; lower it, or set device to cpu")


def several(job: Job, arguments: list[str]) -> int:
    """Run `python -m pipeline ARGUMENTS`, which is the job, in all its processes. Returns the exit status: that of the
    first that failed, 130 after a signal, which is passed on to each. Raises UserError for more GPUs than there are.
    """
    require(job)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Where nobody has said how many threads a process takes, all together take what there is; torchrun would say 1.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // job.processes)))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # each process says itself why it ends
    own = ["--standalone", "--nproc-per-node", str(job.processes), "-m", "pipeline"]
    try:
        run.run(run.parse_args([*own, *arguments]))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        if status < 0:
            why = "too little memory, most often" if status == -9 else "somebody ended it"
            raise UserError(f"{job}: a process got signal {-status} ({why}); the same command goes on") from None
        return status
    except SignalException:
        return 130
    return 0
