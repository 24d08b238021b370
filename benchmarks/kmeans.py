"""k-means of the paper's size against scikit-learn's MiniBatchKMeans: time, inertia, peak memory, as a markdown table.

    python benchmarks/kmeans.py [--rows 1000000] [--dim 1024] [--clusters 2048] [--iterations 12] [--threads 2]
        [--which both|ours|sklearn] [--sklearn-steps 600]

Each runs in a process of its own on the same rows (a mixture of 4,000 unequal Gaussians), so that the peak of its
memory can be told; the rows themselves are in it. The inertia is the mean squared distance over all rows, computed
in the same way for both.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch

from unitweave.units.codebook import nearest
from unitweave.units.kmeans import kmeans


def mixture(rows: int, dim: int) -> torch.Tensor:
    """float32 [rows, dim], like hidden states: clusters of unequal weight that overlap."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(4000, dim, generator=generator)
    weights = torch.rand(4000, generator=generator).square()
    made = torch.empty(rows, dim)
    for part in made.split(50_000):
        which = torch.multinomial(weights, len(part), replacement=True, generator=generator)
        torch.randn(part.shape, generator=generator, out=part)
        part.add_(centers[which], alpha=0.7)
    return made


def measure(which: str, options: argparse.Namespace, answers: multiprocessing.Queue) -> None:
    """Runs in a process of its own: (seconds, inertia, peak GiB, passes over the rows)."""
    torch.set_num_threads(options.threads)
    rows = mixture(options.rows, options.dim)
    start = time.perf_counter()
    if which == "ours":
        result = kmeans(rows, options.clusters, seed=0, iterations=options.iterations)
        seconds, inertia, note = time.perf_counter() - start, result.inertia, f"{result.iterations} passes over parts"
    else:
        from sklearn.cluster import MiniBatchKMeans

        batch = 10_000  # that of fairseq's learn_kmeans.py
        steps = options.sklearn_steps
        fitted = MiniBatchKMeans(
            options.clusters, batch_size=batch, max_iter=max(1, round(steps * batch / options.rows)), n_init=1,
            init="k-means++", max_no_improvement=100, reassignment_ratio=0.0, compute_labels=False, random_state=0,
        ).fit(rows.numpy())  # fmt: skip
        seconds = time.perf_counter() - start
        inertia = float(nearest(rows, torch.from_numpy(np.float32(fitted.cluster_centers_)))[1].double().mean())
        note = f"{fitted.n_steps_} batches of {batch}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answers.put((seconds, inertia, peak, note))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--clusters", type=int, default=2048)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--which", choices=("both", "ours", "sklearn"), default="both")
    parser.add_argument("--sklearn-steps", type=int, default=600)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{options.rows} rows of {options.dim}, {options.clusters} clusters, {options.threads} threads\n")
    print("| k-means | seconds | inertia | peak memory (GiB) | work |")
    print("| --- | ---: | ---: | ---: | --- |")
    for which, name in (("ours", "unitweave"), ("sklearn", "scikit-learn MiniBatchKMeans")):
        if options.which not in ("both", which):
            continue
        answers = context.Queue()
        process = context.Process(target=measure, args=(which, options, answers))
        process.start()
        seconds, inertia, peak, note = answers.get()
        process.join()
        print(f"| {name} | {seconds:.0f} | {inertia:.2f} | {peak:.2f} | {note} |", flush=True)


if __name__ == "__main__":
    main()
