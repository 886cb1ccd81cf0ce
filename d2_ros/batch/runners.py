"""Who runs the jobs: threads that wait for a process each, or a Ray cluster."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from d2_ros.batch.jobs import Ended, Job, end_all, run
from d2_ros.errors import D2RosError, optional_import

CONNECT_S = 5.0
"""How long a cluster may take to answer."""

RETRIES = 3
"""How often Ray starts a job again whose worker or machine was lost."""


def run_here(jobs: Sequence[Job], count: int) -> Iterator[tuple[Job, Ended]]:
    """Run up to `count` jobs at a time on this machine; yield each as it ends.

    Where the caller is told to end, so are the jobs, and none is begun any more.
    """
    pool = ThreadPoolExecutor(count)
    pending = {pool.submit(run, job): job for job in jobs}
    try:
        for future in as_completed(pending):
            yield pending[future], future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_all()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _reach(address: str) -> None:
    """Connect to `host:port`, since Ray tries for minutes where nobody listens; else do nothing.

    Raises
    ------
    OSError
        If nobody listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_S).close()


def run_on_cluster(jobs: Sequence[Job], address: str, gpus: float) -> Iterator[tuple[Job, Ended]]:
    """Run the jobs on a Ray cluster, a core and `gpus` GPUs each; yield each as it ends.

    Parameters
    ----------
    jobs
        Their folders, and their sources, are where every machine of the cluster sees them.
    address
        As ``ray.init`` takes it, such as ``host:6379``; ``auto`` for the one of this machine.
    gpus
        GPUs of each job; a part of one shares it.

    Raises
    ------
    D2RosError
        If Ray is not installed, the cluster cannot be reached, or has no such GPU.
    """
    with optional_import("--cluster takes Ray; install it with `pip install ray`"):
        import ray
    try:
        _reach(address)
        ending = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, ending)  # Ray's own would end the process as it stands
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise D2RosError(
            f"no Ray cluster at {address}: {error}; start one with `ray start --head`"
        ) from None
    try:
        there = ray.cluster_resources().get("GPU", 0)
        if gpus > there:
            raise D2RosError(
                f"--gpus {gpus:g} is more than the {there:g} GPUs of the cluster at {address}; "
                "add a machine that has them, or leave it out"
            )
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(run)
        pending = {remote.remote(job): job for job in jobs}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(done)
            try:
                yield job, ray.get(done)
            except ray.exceptions.RayError as error:
                reason = f"lost by the cluster: {' '.join(str(error).split())}"
                yield job, Ended(job.arguments, -1, 0.0, reason)
    finally:
        ray.shutdown()
