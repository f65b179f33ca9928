"""Tiny configurations of vLLM's models."""

import json

import pytest

from verify.engines.vllm.serving.inside import tiny


def test_every_model_has_experts_and_two_layers():
    for name in tiny.names():
        made = tiny.configuration(name)
        words = json.dumps(made)
        assert made["architectures"], name
        assert "experts" in words, name


def test_bases_are_laid_over_each_other_and_the_models_own_last():
    made = tiny.configuration("deepseek_v3")
    assert (made["kv_lora_rank"], made["num_key_value_heads"]) == (512, 4)
    assert made["scoring_func"] == "sigmoid"
    assert tiny.configuration("deepseek_v2")["scoring_func"] == "softmax"
    assert "rope_parameters" not in tiny.configuration("step3p5")


def test_a_models_text_part_is_made_of_bases_too():
    made = tiny.configuration("aria")
    assert made["text_config"]["hidden_size"] == 128
    assert made["text_config"]["moe_num_experts"] == 8
    assert "hidden_size" not in made


def test_a_model_like_another_has_its_arguments():
    made = tiny.configuration("transformers_mixtral")
    assert made["tiny_arguments"] == ["--model-impl=transformers"]
    assert made["architectures"] == tiny.configuration("mixtral")["architectures"]


def test_a_model_like_another_may_have_another_architecture_and_words():
    made, other = tiny.configuration("granitemoe_swa"), tiny.configuration("granitemoeshared")
    assert made["architectures"] == ["GraniteMoeSWAForCausalLM"]
    assert made["sliding_window"] == 128
    assert made["shared_intermediate_size"] == other["shared_intermediate_size"]
    assert other["architectures"] == ["GraniteMoeSharedForCausalLM"]


def test_a_model_without_an_entry_is_named():
    with pytest.raises(NotImplementedError, match=r"nonesuch: no tiny configuration; .*mixtral"):
        tiny.configuration("nonesuch")


def test_what_is_written_is_read_again(tmp_path):
    tiny.write("mixtral", tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == tiny.configuration("mixtral")
