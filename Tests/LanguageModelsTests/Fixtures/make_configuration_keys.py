"""Writes the keys that transformers' configuration classes declare, with the values of an empty `config.json`.

    pip install torch transformers
    python make_configuration_keys.py

`configuration-keys.json` maps each `model_type` to its keys; those of every model (`PreTrainedConfig`) are left out, and
so are the values of vision parts.
"""
import dataclasses
import json
import pathlib

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

FAMILIES = ["arcee", "seed_oss", "granite", "smollm3", "olmo2", "olmo3", "ernie4_5", "hunyuan_v1_dense", "glm4", "cohere2",
            "ministral3", "gemma3", "mistral3", "qwen2_5_vl", "qwen3_vl", "gpt_neox", "opt", "bloom", "phi", "stablelm", "starcoder2",
            "falcon", "gptj", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "glm4_moe", "deepseek_v2", "deepseek_v3",
             "llama4_text", "gpt_oss", "qwen3_5_text", "qwen3_5", "qwen3_5_moe_text", "qwen3_5_moe", "qwen3_next", "gemma4_text", "gemma4",
             "gemma3n_text", "gemma3n", "lfm2", "lfm2_moe", "granitemoehybrid",
             "falcon_h1", "nemotron_h"]

common = {field.name for field in dataclasses.fields(PreTrainedConfig)}


def declared(config):
    # Infinity as transformers writes it.
    values = json.loads(config.to_json_string(use_diff=False))
    return {name: values.get(name) for name in sorted({field.name for field in dataclasses.fields(type(config))} - common)}


result = {}
for family in FAMILIES:
    config = AutoConfig.for_model(family)
    result[family] = declared(config)
    if "vision_config" in result[family]:
        result[family].update(vision_config={}, text_config=dict(
            declared(config.text_config), model_type=config.text_config.model_type))
    if "audio_config" in result[family]:
        result[family]["audio_config"] = {}
path = pathlib.Path(__file__).parent / "configuration-keys.json"
path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
print({family: len(keys) for family, keys in result.items()})
