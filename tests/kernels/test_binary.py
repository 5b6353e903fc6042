"""Reading binaries: the right instructions are counted, and a tool that fails is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from predawn.kernels.binary import BinaryError, Resources, amd, nvidia

SASS = """\
        /*0000*/ LDG.E.EL.128 R4, desc[UR4][R2.64] ;
        /*0010*/ @P0 LDG.E.EF.64 R4, desc[UR4][R2.64] ;
        /*0020*/ LDG.E.STRONG.GPU R4, desc[UR4][R2.64] ;
        /*0030*/ LDGSTS.E.BYPASS.LTC128B.128 [R4], desc[UR4][R2.64] ;
        /*0040*/ CCTL.E.PF2 [R2] ;
        /*0050*/ CCTL.IVALL ;
        /*0060*/ HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0070*/ STL [R1], R4 ;
        /*0080*/ LDL.LU R4, [R1] ;
"""
AMDGCN = """\
    global_load_dwordx4 v[0:3], v[4:5], off nt
    global_load_dwordx4 v[0:3], v[4:5], off
    v_mfma_f32_16x16x16_bf16 v[0:3], v[4:5], v[6:7], v[0:3]
    s_barrier
    .vgpr_count:     128
    .vgpr_spill_count: 8
    .sgpr_count:     100
    .sgpr_spill_count: 20
    .private_segment_fixed_size: 32
"""


def tool(folder: Path, name: str, output: str, status: int = 0) -> str:
    """A program that prints `output`."""
    text = folder / f"{name}.txt"
    text.write_text(output, encoding="utf-8")
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat '{text}'\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_instructions_of_a_cubin_are_told_apart(tmp_path: Path) -> None:
    usage = "Function k:\n  REG:255 STACK:16 SHARED:1024 LOCAL:0 CONSTANT[0]:700 TEXTURE:0\n"
    resources, counts = nvidia(
        b"", "prefetch.global.L2 [%r1];\nld.global.L2::evict_last.b32\n", 2048,
        cuobjdump=tool(tmp_path, "cuobjdump", usage), nvdisasm=tool(tmp_path, "nvdisasm", SASS),
    )  # fmt: skip

    assert resources == Resources(registers=255, spill_bytes=16, shared_bytes=2048)
    assert counts == {
        "HMMA": 1, "LDGSTS": 1, "LDG.EL": 1, "LDG.EF": 1, "LDG": 1, "PREFETCH": 1, "CCTL": 1, "LDL": 1, "STL": 1,
        "ptx:evict_last": 1, "ptx:prefetch": 1,
    }  # fmt: skip


def test_amd_assembly_tells_vector_spills_from_scalar_ones() -> None:
    resources, counts = amd(AMDGCN, 8192)

    assert resources == Resources(128, 32, 8192, scalar_registers=100, scalar_spills=20)
    assert counts == {"MFMA": 1, "GLOBAL_LOAD": 2, "LOAD_NT": 1, "BARRIER": 1}


def test_a_disassembler_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match="cuobjdump failed"):
        nvidia(b"", "", 0, cuobjdump=tool(tmp_path, "cuobjdump", "", 3), nvdisasm="")


def test_a_missing_disassembler_is_named(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match="absent: No such file"):
        nvidia(b"", "", 0, cuobjdump=str(tmp_path / "absent"), nvdisasm="")


def test_output_without_figures_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match="printed no resource usage: 'nothing here'"):
        nvidia(
            b"", "", 0, cuobjdump=tool(tmp_path, "cuobjdump", "nothing here"), nvdisasm=tool(tmp_path, "nvdisasm", "")
        )


def test_assembly_without_metadata_is_refused() -> None:
    with pytest.raises(BinaryError, match=r"no \.vgpr_count"):
        amd("s_endpgm", 0)
