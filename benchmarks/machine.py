"""What the measurements were taken on."""

from __future__ import annotations

import multiprocessing
import os
import platform
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

import torch

MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
BF16_FLAGS = ("avx512_bf16", "amx_bf16")


def facts() -> dict[str, str | int | float | list[str]]:
    """Processor, its matrix instructions, how busy it is, and the versions that matter."""
    name, flags = _processor()
    return {
        "processor": name,
        "cores": os.cpu_count() or 1,
        "instructions": [flag for flag in MATRIX_FLAGS if flag in flags],
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else float("nan"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def fresh_processes() -> ForkServerContext | SpawnContext:
    """Start processes that share no memory; they come from a clean server that has imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.systems"])
    return context


def has_bf16_unit() -> bool:
    """Return whether the processor multiplies bfloat16 matrices itself."""
    return any(flag in _processor()[1] for flag in BF16_FLAGS)


def sentence(threads: int = 1) -> str:
    """Return the facts as a line to print above a table."""
    found = facts()
    has = " ".join(found["instructions"]) if isinstance(found["instructions"], list) else ""
    missing = " ".join(flag for flag in BF16_FLAGS if flag not in has)
    return (
        f"{found['processor']}, {found['cores']} cores (load {found['load']}), {threads} thread"
        f"{'s' if threads > 1 else ''} each; has {has or 'no vector unit that is known'}"
        f"{'; lacks ' + missing if missing else ''}; torch {found['torch']}"
    )


def _processor() -> tuple[str, set[str]]:
    """Name and flags, from Linux where it is one."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    return name, flags
