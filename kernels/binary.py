"""What a compiled kernel is made of: registers, spills, shared memory, and the instructions that move memory.

Read from the binary with the disassemblers of the triton wheel, because the source does not tell: Triton may drop an
eviction policy from a load that it pipelines, or leave a load in registers that was meant to be asynchronous.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Resources:
    """What one program of the kernel takes from a multiprocessor."""

    registers: int
    """Per thread; vector registers on AMD."""
    spill_bytes: int
    """Per thread, registers written to memory for want of room."""
    shared_bytes: int
    """Per program; LDS on AMD."""
    scalar_registers: int = 0
    """Per wave; AMD only."""
    scalar_spills: int = 0
    """Scalar registers kept in lanes of vector registers, which costs no memory traffic; AMD only."""


class BinaryError(RuntimeError):
    """A disassembler failed, or said what this module does not understand; the message quotes it."""


_NVIDIA = {
    "HMMA": r"HMMA[.\w]*",
    "HGMMA": r"HGMMA[.\w]*",
    "UTCMMA": r"UTC\w*MMA[.\w]*",
    "LDGSTS": r"LDGSTS[.\w]*",
    "LDG.EL": r"LDG\.E\.EL[.\w]*",
    "LDG.EF": r"LDG\.E\.EF[.\w]*",
    "LDG": r"LDG\.E(?!\.E[LF])[.\w]*",
    "UTMALDG": r"UTMALDG[.\w]*",
    "PREFETCH": r"CCTL\.\w*\.?PF\w*[.\w]*",
    "CCTL": r"CCTL(?!\.\w*\.?PF)[.\w]*",
    "LDSM": r"LDSM[.\w]*",
    "STG": r"STG[.\w]*",
    "LDL": r"LDL[.\w]*",
    "STL": r"STL[.\w]*",
    "ATOMG": r"ATOMG[.\w]*",
    "RED": r"REDG?\.[.\w]*",
    "MEMBAR": r"MEMBAR[.\w]*",
    "BAR": r"BAR\.[.\w]*",
}
_PTX = {
    "ptx:evict_last": r"L\d::evict_last",
    "ptx:evict_first": r"L\d::evict_first",
    "ptx:prefetch": r"prefetch\.",
    "ptx:cp.async": r"cp\.async\.c[ga]\b",
}
_AMD = {
    "MFMA": r"v_mfma\w*",
    "WMMA": r"v_wmma\w*",
    "GLOBAL_LOAD": r"global_load\w*",
    "BUFFER_LOAD": r"buffer_load\w*",
    "LOAD_NT": r"(?:global|buffer)_load\w*[^\n]*\bnt\b",
    "LOAD_TO_LDS": r"(?:global|buffer)_load\w*lds\w*",
    "GLOBAL_STORE": r"(?:global|buffer)_store\w*",
    "DS_READ": r"ds_(?:read|load)\w*",
    "SCRATCH": r"scratch_(?:load|store)\w*",
    "ATOMIC": r"(?:global|buffer)_atomic\w*",
    "BARRIER": r"s_barrier\w*",
}


def nvidia(
    cubin: bytes, ptx: str, shared_bytes: int, *, cuobjdump: str, nvdisasm: str
) -> tuple[Resources, dict[str, int]]:
    """Resources and instruction counts of a cubin. `shared_bytes` is what the launch asks for: no cubin says it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        usage = _run(cuobjdump, "--dump-resource-usage", str(path))
        assembly = _run(nvdisasm, str(path))
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    if "REG" not in found or "STACK" not in found:
        raise BinaryError(f"cuobjdump printed no resource usage: {usage.strip()[:200]!r}")
    resources = Resources(
        found["REG"], found["STACK"] + found.get("LOCAL", 0), max(shared_bytes, found.get("SHARED", 0))
    )
    return resources, _count(assembly, _NVIDIA) | _count(ptx, _PTX)


def amd(assembly: str, shared_bytes: int) -> tuple[Resources, dict[str, int]]:
    """Resources and instruction counts of AMD assembly, from its metadata and its text."""

    def number(name: str) -> int:
        match = re.search(rf"\.{name}:\s+(\d+)", assembly)
        if match is None:
            raise BinaryError(f"the assembly has no .{name}")
        return int(match[1])

    resources = Resources(
        registers=number("vgpr_count"),
        spill_bytes=max(4 * number("vgpr_spill_count"), number("private_segment_fixed_size")),
        shared_bytes=shared_bytes,
        scalar_registers=number("sgpr_count"),
        scalar_spills=number("sgpr_spill_count"),
    )
    return resources, _count(assembly, _AMD)


def _run(tool: str, *arguments: str) -> str:
    try:
        done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - our own tool
    except OSError as exc:
        raise BinaryError(f"{tool}: {exc.strerror}") from None
    if done.returncode:
        raise BinaryError(f"{Path(tool).name} failed: {done.stderr.strip()[:300]}")
    return done.stdout


def _count(text: str, patterns: dict[str, str]) -> dict[str, int]:
    return dict(Counter(_found(text, patterns)))


def _found(text: str, patterns: dict[str, str]) -> Iterator[str]:
    for name, pattern in patterns.items():
        for _ in re.finditer(rf"(?<!\w){pattern}", text):
            yield name
