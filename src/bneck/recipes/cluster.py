"""The crew on a Ray cluster: the same work, spread over the cluster's processors as Ray tasks.

All nodes must have bneck installed and see the run's folder under the same path (a shared file system):
packed images, checkpoints and weights pass through it. Latency is measured where the run was started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bneck.recipes.crew import MAX_TRIES, Crew
from bneck.specs.errors import InputError

T = TypeVar("T")


def check_address(address: str) -> None:
    """Raise InputError for what is no address of a Ray cluster."""
    if address != "auto" and not address.startswith("ray://"):
        raise InputError(
            f"the cluster is {address!r}; write auto for the Ray cluster of this machine, or "
            "ray://HOST:10001"
        )


class RayCrew(Crew):
    """Ray tasks of one processor each; use it in a `with` block.

    Args:
        address: "auto", or "ray://HOST:PORT" of a cluster's client server.

    Raises:
        InputError: no such cluster.
    """

    def __init__(self, address: str) -> None:
        import ray

        check_address(address)
        self._began = not ray.is_initialized()
        if self._began:
            try:
                ray.init(address=address, log_to_driver=False, logging_level="warning")
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise InputError(
                    f"the Ray cluster {address} cannot be reached ({reason}); start one with "
                    "'ray start --head' or name its address"
                ) from None
        super().__init__(max(1, int(ray.cluster_resources().get("CPU", 1))))

    def stop(self) -> None:
        """Leave the cluster; its tasks end with this."""
        import ray

        if self._began and ray.is_initialized():
            ray.shutdown()

    def run(
        self,
        task: Callable[..., T],
        arguments: Sequence[tuple[Any, ...]],
        on_done: Callable[[int, T], None],
    ) -> None:
        """See `Crew.run`; work that is lost with its worker or node is begun again elsewhere."""
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
            for reference in under_way:
                ray.cancel(reference, force=True)


def _call(folder: str, task: Callable[..., T], *arguments: Any) -> T:
    """A piece of work on a node: paths may be relative to where the run was started."""
    import torch

    os.chdir(folder)
    torch.set_num_threads(1)
    return task(*arguments)


def open_crew(workers: int, cluster: str | None) -> Crew:
    """Worker processes of this machine, or those of a Ray cluster."""
    return Crew(workers) if cluster is None else RayCrew(cluster)
