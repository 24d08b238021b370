"""GPUs that a training may run on, by their data sheets: nothing is measured here."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU."""

    name: str
    memory: float  # GiB
    tflops: float  # dense bf16 matrix products
    bandwidth: float  # GB a second to and from its memory

    def holds(self, memory: float) -> bool:
        """Whether a process that needs this many GiB fits, with a twentieth left for fragmentation."""
        return memory < 0.95 * self.memory

    def hours(self, flops: float, utilization: float, gpus: int = 1) -> float:
        """Hours that the operations take on several such GPUs at a fraction of their peak."""
        return flops / (self.tflops * 1e12 * utilization * gpus) / 3600


GPUS = {
    "h200": Gpu("H200 141 GB", 141, 989, 4800),
    "h100": Gpu("H100 80 GB", 80, 989, 3350),
    "a100": Gpu("A100 80 GB", 80, 312, 2039),
    "a100-40": Gpu("A100 40 GB", 40, 312, 1555),
    "l40s": Gpu("L40S 48 GB", 48, 362, 864),
    "l4": Gpu("L4 24 GB", 24, 121, 300),
    "rtx4090": Gpu("RTX 4090 24 GB", 24, 165, 1008),
    "rtx3090": Gpu("RTX 3090 24 GB", 24, 71, 936),
}
