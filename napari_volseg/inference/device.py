"""Which device computes, in words that a user knows."""

from __future__ import annotations

import platform
from typing import Literal

import psutil
import torch

from napari_volseg.data.errors import InputError
from napari_volseg.inference.cgroup import free_bytes

Precision = Literal["float32", "bfloat16"]


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name; "auto" is CUDA, else MPS, else the CPU.

    Raises
    ------
    InputError
        If torch does not know the device or cannot reach it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used on this machine; choose auto, cpu, cuda or mps"
        ) from error
    return device


def pick_precision(name: str, device: torch.device) -> Precision:
    """Return what a training on a device computes in; "auto" is bfloat16 where that pays.

    On a CPU it takes three times as long (one without instructions for it).

    Raises
    ------
    InputError
        If bfloat16 is asked for where there is none.
    """
    # Older GPUs only emulate it.
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "bfloat16" and not has_it:
        raise InputError(
            f"precision bfloat16 is for newer CUDA GPUs, not for {describe_device(device)}; choose "
            "auto or float32"
        )
    return "bfloat16" if has_it and name != "float32" else "float32"


def describe_device(device: torch.device) -> str:
    """Name a device for the user, as "GPU NVIDIA RTX 4070" or "CPU, 8 threads"."""
    if device.type == "cuda":
        return f"GPU {torch.cuda.get_device_name(device)}"
    if device.type == "mps":
        return f"GPU {platform.processor() or 'Apple'}"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def memory_in_use(device: torch.device) -> int:
    """Bytes held on the device: torch's on a GPU, the whole process's on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return int(psutil.Process().memory_info().rss)


def free_memory(device: torch.device) -> int:
    """Bytes that a device has left for us, with what torch keeps of a GPU for later.

    On a CPU no more than a container or a batch system leaves.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return free_bytes()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left.

    torch raises an error of its own for CUDA, and a RuntimeError on a CPU and on MPS.
    """
    said = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def release_memory(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
