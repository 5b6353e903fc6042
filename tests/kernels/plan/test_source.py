"""Reading a shape from a checkpoint: only config.json, and clear words about a bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from predawn.kernels.known_shapes import ShapeError
from predawn.kernels.plan.source import read_config
from predawn.kernels.shape import BlockShape

CONFIG = {
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "vocab_size": 49152,
}


def write(folder: Path, config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_plain_llama_runs_each_block_once(tmp_path: Path) -> None:
    model = read_config(write(tmp_path, CONFIG))

    assert model.blocks == BlockShape(576, 9, 3, 64, 1536, 30, 1)
    assert model.vocabulary == 49152
    assert model.name == tmp_path.name


@pytest.mark.parametrize(
    ("keys", "repeat"),
    [
        ({"layer_sharing": True}, 2),
        ({"layer_sharing": True, "share_repeat": 3}, 3),
        ({"layer_sharing": False, "share_repeat": 3}, 1),
        ({"share_repeat": 3}, 3),
    ],
)
def test_mobilellm_sharing_is_read(tmp_path: Path, keys: dict[str, Any], repeat: int) -> None:
    assert read_config(write(tmp_path, CONFIG | keys)).blocks.repeat == repeat


def test_without_grouped_queries_each_head_has_its_own_kv(tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "num_key_value_heads"}

    assert read_config(write(tmp_path, config)).blocks.kv_heads == 9


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({**CONFIG, "hidden_size": "wide"}, "hidden_size must be a whole number, not 'wide'"),
        ({**CONFIG, "num_attention_heads": 0}, "heads must be 1 to"),
        ({**CONFIG, "num_key_value_heads": 2}, "multiple of kv_heads"),
        ({**CONFIG, "vocab_size": -5}, "vocabulary must be 0 to"),
        ({"model_type": "gpt2", "n_embd": 768}, "hidden_size is missing; only checkpoints of the Llama family"),
        ([1], "an object is expected, not list"),
    ],
)
def test_a_bad_config_is_refused_by_file_and_key(tmp_path: Path, config: Any, complaint: str) -> None:
    with pytest.raises(ShapeError, match=rf"config\.json: .*{complaint}"):
        read_config(write(tmp_path, config))


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")

    with pytest.raises(ShapeError, match=r"config\.json: this is not JSON"):
        read_config(tmp_path)


def test_a_folder_without_config_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"there is no config\.json in it; give --shape instead"):
        read_config(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="no such folder"):
        read_config(tmp_path / "absent")
