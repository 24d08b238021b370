"""Devices by the names that users give them."""

import contextlib
import ctypes

import torch

from unitweave.config.training import Precision
from unitweave.core.distributed import num_processes
from unitweave.core.errors import InputError, first_line

_M_ARENA_MAX = -8  # malloc.h


def resolve_device(name: str) -> torch.device:
    """The device that a name means; "auto" is the GPU where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def local_devices() -> list[torch.device]:
    """What this process may compute on: all GPUs of the machine, or its own one where a launcher started several."""
    if not torch.cuda.is_available() or num_processes() > 1:
        return [resolve_device("auto")]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def check_device(name: str, setting: str) -> None:
    """Raise InputError unless torch can compute on the device; `setting` says whose name it is."""
    try:
        torch.empty(0, device=resolve_device(name))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{setting} {name!r}: torch cannot use it here ({first_line(error)})") from None


def has_native_bf16() -> bool:
    """Whether the GPU, or else the CPU, multiplies bfloat16 itself; emulated it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    limited = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")  # perhaps by ATEN_CPU_CAPABILITY
    return not limited and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def use_bf16(precision: Precision) -> bool:
    """Whether to compute in bf16: "bf16" where the hardware multiplies it natively, "fp32" never.

    Emulated bf16 is slower than float32, twenty times in the vocoder, so it is left off there.
    """
    return precision == "bf16" and has_native_bf16()


def share_freed_memory() -> None:
    """Let the threads that come use each other's freed memory.

    Otherwise glibc keeps a stock of it for each: in a server that of some forty threads, a hundred megabytes and more.
    """
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)


def release_freed_memory() -> None:
    """Give the memory of freed tensors back to the system.

    On a CPU glibc keeps that of tensors below 32 MB for itself: of a training step's activations a gigabyte and more.
    """
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
