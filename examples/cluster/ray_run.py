"""From corpus to scores on a Ray cluster: one process of `unitweave run` for each GPU, on any of its hosts.

    ray start --head                                  # on the first host; the others: ray start --address HEAD:6379
    python examples/cluster/ray_run.py RECIPE --out /shared/run --processes 16 [--attempts 10] [-- --KEY VALUE ...]

The run folder must be on a disk that all hosts see. When a process fails or its host is taken away, all processes are
ended and begin again: finished stages are passed, trainings go on from their checkpoints, translations from their
shards. Invalid input (exit code 2) is not tried again.
"""

import argparse
import os
import socket
import subprocess
import sys

import ray
from ray.exceptions import RayError


@ray.remote(max_restarts=0, max_task_retries=0)
class Process:
    """One of the processes, with a GPU of its own where the cluster has any."""

    def address(self) -> tuple[str, int]:
        """This host, and a port that is free on it."""
        with socket.socket() as listener:
            listener.bind(("", 0))
            return ray.util.get_node_ip_address(), listener.getsockname()[1]

    def run(self, command: list[str], environment: dict[str, str]) -> int:
        """Run the command to its end; returns its exit code. Ray has chosen the GPU: it is the only one to be seen."""
        return subprocess.run(command, env=os.environ | environment, check=False).returncode


def attempt(arguments: list[str], processes: int, gpus: int) -> int:
    """Run all processes to their end; returns 0, or the exit code of the first that failed."""
    workers = [Process.options(num_gpus=gpus, num_cpus=1).remote() for _ in range(processes)]
    try:
        host, port = ray.get(workers[0].address.remote())
        shared = {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), "LOCAL_RANK": "0"}
        command = [sys.executable, "-m", "unitweave", "run", *arguments]
        waiting = [w.run.remote(command, shared | {"RANK": str(rank)}) for rank, w in enumerate(workers)]
        while waiting:
            (done,), waiting = ray.wait(waiting)
            if code := ray.get(done):
                return code
        return 0
    except RayError as error:  # a host is gone
        print(f"ray: {type(error).__name__}", file=sys.stderr)
        return 1
    finally:
        for worker in workers:
            ray.kill(worker)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--out", required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--attempts", type=int, default=10)
    parser.add_argument("overrides", nargs="*", help="after --: settings for unitweave run")
    options = parser.parse_args()
    ray.init(log_to_driver=True)
    gpus = int(ray.cluster_resources().get("GPU", 0) > 0)
    for number in range(options.attempts):
        code = attempt([options.recipe, "--out", options.out, *options.overrides], options.processes, gpus)
        if code in (0, 2):
            return code
        print(f"attempt {number + 1} of {options.attempts} ended with exit code {code}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
