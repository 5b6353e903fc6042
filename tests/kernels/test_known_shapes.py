"""Shapes by name and written out; what cannot be is refused by name."""

from __future__ import annotations

import pytest

from predawn.kernels.known_shapes import KNOWN_SHAPES, ShapeError, parse_shape
from predawn.kernels.shape import BlockShape


def test_a_known_shape_is_found_in_any_case() -> None:
    assert parse_shape("125m") is KNOWN_SHAPES["125M"]


def test_a_shape_can_be_written_out() -> None:
    model = parse_shape("dim=128, heads=4,kv_heads=2 ,ffn=320,layers=3,repeat=3,vocabulary=1_000")

    assert model.blocks == BlockShape(128, 4, 2, 32, 320, 3, 3)
    assert model.vocabulary == 1000


def test_heads_may_be_wider_than_their_share() -> None:
    assert parse_shape("dim=100,heads=3,kv_heads=1,ffn=64,layers=1,head_dim=64").blocks.head_dim == 64


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("7T", "no shape '7T'; known: 125M, 350M, 600M, 1B, 1.5B; or write dim="),
        ("", "no shape ''"),
        ("dim=64,heads=2,kv_heads=1,ffn=64", "layers missing"),
        ("dim=64,head=2", "'head' is no part of a shape — did you mean 'heads'"),
        ("dim=64,dim=64", "dim is given twice"),
        ("dim=big,heads=2,kv_heads=1,ffn=64,layers=1", "dim must be a whole number, not 'big'"),
        ("dim=64,heads=3,kv_heads=1,ffn=64,layers=1", "dim .64. is no multiple of heads .3.; give head_dim"),
        ("dim=64,heads=0,kv_heads=1,ffn=64,layers=1", "dim .64. is no multiple of heads .0."),
        ("dim=64,heads=4,kv_heads=3,ffn=64,layers=1", "must be a multiple of kv_heads"),
        ("dim=64,heads=2,kv_heads=0,ffn=64,layers=1", "kv_heads must be 1 to 1,048,576, not 0"),
        ("dim=-64,heads=2,kv_heads=1,ffn=64,layers=1", "dim must be 1 to 1,048,576, not -64"),
        ("dim=6,heads=2,kv_heads=1,ffn=64,layers=1", "head_dim .3. must be even"),
        ("dim=64,heads=2,kv_heads=1,ffn=64,layers=99999999", "layers must be 1 to 1,048,576, not 99999999"),
        ("dim=64,heads=2,kv_heads=1,ffn=64,layers=1,vocabulary=-1", "vocabulary must be 0 to 1,048,576, not -1"),
        ("dim=64,heads=2,kv_heads=1,ffn=64,layers=1,repeat=0", "repeat must be 1 to"),
    ],
)
def test_what_cannot_be_a_shape_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(ShapeError, match=complaint):
        parse_shape(text)
