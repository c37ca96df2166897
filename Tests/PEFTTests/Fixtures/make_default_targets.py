"""Writes `defaults.json`: for each method and type of model, the targets that Hugging Face PEFT takes if none are given.

    pip install torch transformers peft==0.21.2
    python make_default_targets.py
"""
import json
import pathlib

from peft.utils import constants

FAMILIES = ["t5", "mt5", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "gpt2", "bert",
            "roberta", "xlm-roberta", "distilbert", "gpt_neox", "opt", "bloom", "phi", "stablelm", "starcoder2", "falcon", "gptj",
            "arcee", "seed_oss", "granite", "smollm3", "olmo2", "olmo3", "ernie4_5", "hunyuan_v1_dense", "glm4", "cohere2",
            "ministral3", "gemma3", "mistral3", "qwen2_5_vl", "qwen3_vl", "mixtral", "qwen2_moe", "qwen3_moe",
            "olmoe", "granitemoe", "glm4_moe", "deepseek_v2", "deepseek_v3", "llama4_text", "gpt_oss",
            "qwen3_5_text", "qwen3_5", "qwen3_5_moe_text", "qwen3_5_moe", "qwen3_next",
            "lfm2", "lfm2_moe", "granitemoehybrid", "falcon_h1", "nemotron_h"]
MAPPINGS = dict(lora="LORA", adalora="ADALORA", ia3="IA3", ia3_feedforward="IA3_FEEDFORWARD", vera="VERA", loha="LOHA",
                lokr="LOKR", oft="OFT", boft="BOFT", layernorm="LNTUNING",
                miss="MISS", hira="HIRA", shira="SHIRA", gralora="GRALORA", randlora="RANDLORA", delora="DELORA", road="ROAD",
                pvera="PVERA", hra="HRA")

FAMILIES += ["bart", "mbart", "pegasus", "marian", "m2m_100", "umt5", "modernbert", "electra", "albert", "mpnet",
             "xlm-roberta-xl", "deberta-v2", "nomic_bert"]

defaults = {}
for method, mapping in MAPPINGS.items():
    table = getattr(constants, f"TRANSFORMERS_MODELS_TO_{mapping}_TARGET_MODULES_MAPPING", None) or getattr(
        constants, f"TRANSFORMERS_MODELS_TO_{mapping}_MODULES_MAPPING")
    defaults[method] = {family: sorted(table[family]) for family in FAMILIES if family in table}
path = pathlib.Path(__file__).parent / "defaults.json"
path.write_text(json.dumps(defaults, indent=1, sort_keys=True) + "\n")
