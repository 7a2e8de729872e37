"""The pool on a Ray cluster: the same work, spread over the cluster's processors as Ray tasks.

All nodes must have bneck installed and see the run's folder under the same path (a shared file system):
packed images, checkpoints and weights pass through it. Latency is measured where the run was started.
"""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from bneck.runs.search.workers import MAX_TRIES, Arguments, WorkerPool, local_pool
from bneck.specs.errors import InputError

ANSWER_S = 10.0  # within which the client server of a cluster must take a connection

T = TypeVar("T")


def check_address(address: str) -> None:
    """Raise InputError for what is no address of a Ray cluster."""
    if address != "auto" and _host_and_port(address) is None:
        raise InputError(
            f"the cluster is {address!r}; write auto for the Ray cluster of this machine, or "
            "ray://HOST:10001"
        )


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Of `ray://HOST:PORT`; None for anything else."""
    found = re.fullmatch(r"ray://(\[[0-9a-fA-F:]+\]|[^\s:/]+):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 2**16:
        return None
    return found[1].strip("[]"), int(found[2])


class RayWorkers(WorkerPool):
    """Ray tasks of one processor each; use it in a `with` block.

    Args:
        address: "auto", or "ray://HOST:PORT" of a cluster's client server.

    Raises:
        InputError: no such cluster.
    """

    def __init__(self, address: str) -> None:
        check_address(address)
        self.address = address
        try:
            self._knock()
            import ray

            self._began = not ray.is_initialized()
            if self._began:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what is wrong is said below, once
                    ray.init(address=address, log_to_driver=False, logging_level="warning")
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"the Ray cluster {address} cannot be reached ({reason}); start one with "
                "'ray start --head' or name its address"
            ) from None
        super().__init__(max(1, int(ray.cluster_resources().get("CPU", 1))))

    def _knock(self) -> None:
        # Ray itself tries for half a minute where nobody listens.
        if (place := _host_and_port(self.address)) is not None:
            socket.create_connection(place, timeout=ANSWER_S).close()

    def stop(self) -> None:
        """Leave the cluster; its tasks end with this."""
        import ray

        if self._began and ray.is_initialized():
            ray.shutdown()

    def run(
        self, task: Callable[..., T], arguments: Arguments, on_done: Callable[[int, T], None]
    ) -> None:
        """See `WorkerPool.run`; work that is lost with its worker or node is begun again elsewhere.

        Raises:
            InputError: one task was lost three times, or the whole cluster was.
        """
        try:
            self._run(task, arguments, on_done)
        except ConnectionError:
            raise InputError(
                f"the Ray cluster {self.address} was lost; what was finished is kept, bring the cluster back "
                "and go on with --resume"
            ) from None

    def _run(
        self, task: Callable[..., T], arguments: Arguments, on_done: Callable[[int, T], None]
    ) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        # Tries are counted here, as for local workers, and not by Ray.
        remote = ray.remote(num_cpus=1, max_retries=0)(_call)
        tries = dict.fromkeys(range(len(arguments)), 0)

        def begin(index: int) -> Any:
            return remote.remote(os.getcwd(), task, *arguments[index])

        under_way = {begin(index): index for index in tries}
        try:
            while under_way:
                (reference, *_), _ = ray.wait(list(under_way), num_returns=1)
                index = under_way.pop(reference)
                try:
                    result = ray.get(reference)
                except RayTaskError as error:
                    if isinstance(error.cause, Exception):
                        raise error.cause from None
                    raise
                except RayError:
                    tries[index] += 1
                    if tries[index] >= MAX_TRIES:
                        raise InputError(
                            f"the cluster lost the same work {MAX_TRIES} times, most likely for want of "
                            "memory; give its nodes fewer processors (ray start --num-cpus)"
                        ) from None
                    under_way[begin(index)] = index
                    continue
                on_done(index, result)
        finally:
            if ray.is_initialized():  # Ray would begin a cluster of its own for what was lost
                for reference in under_way:
                    ray.cancel(reference, force=True)


def _call(folder: str, task: Callable[..., T], *arguments: Any) -> T:
    """A piece of work on a node: paths may be relative to where the run was started."""
    import torch

    os.chdir(folder)
    torch.set_num_threads(1)
    return task(*arguments)


def open_pool(workers: int, cluster: str | None) -> WorkerPool:
    """Worker processes of this machine, or those of a Ray cluster."""
    return local_pool(workers) if cluster is None else RayWorkers(cluster)
