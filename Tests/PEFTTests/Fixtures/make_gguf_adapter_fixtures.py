"""Writes a LoRA over the small Llama as Hugging Face PEFT and as llama.cpp have it, and what PEFT computes with it.

    pip install torch transformers peft gguf; python make_gguf_adapter_fixtures.py
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from gguf import GGUFWriter
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

here = Path(__file__).parent
target = here / "gguf-adapter"
shutil.rmtree(target, ignore_errors=True)
model = transformers.AutoModelForCausalLM.from_pretrained(
    here / "../../LanguageModelsTests/Fixtures/llama", dtype=torch.float32, attn_implementation="eager")
heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "down_proj": "ffn_down"}
torch.manual_seed(4)
adapted = get_peft_model(model, LoraConfig(
    r=2, lora_alpha=3, use_rslora=True, rank_pattern={"layers.1.self_attn.k_proj": 3}, task_type="CAUSAL_LM",
    target_modules=["q_proj", "k_proj", "down_proj", "embed_tokens"], init_lora_weights=True)).eval()
for name, p in adapted.named_parameters():
    if "lora_" in name: torch.nn.init.normal_(p, std=0.2)
adapted.peft_config["default"].base_model_name_or_path = "llama"
adapted.save_pretrained(target, save_embedding_layers=False)
(target / "README.md").unlink(missing_ok=True)
rows = [[(7 * i + 3) % 90 for i in range(12)]]
with torch.no_grad(): logits = adapted(torch.tensor(rows)).logits[0, -4:]
save_file({"logits": logits.contiguous()}, target / "expected.safetensors", metadata={"rows": json.dumps(rows)})

writer = GGUFWriter(target / "adapter.gguf", "llama")
writer.add_type("adapter")
writer.add_string("adapter.type", "lora")
writer.add_float32("adapter.lora.alpha", 3.0)
for key, value in load_file(target / "adapter_model.safetensors").items():
    parts = key.split(".")
    if "embed_tokens" in parts:
        array = (value.T if key.endswith("_A") else value * (3 / 2**0.5) / (3 / 2)).contiguous().numpy()
        writer.add_tensor("token_embd.weight.lora_" + key[-1].lower(), array)
        continue
    layer, leaf, matrix = parts[parts.index("layers") + 1], parts[-3], parts[-2][-1].lower()
    if matrix == "b":
        rank = value.shape[1]
        # rsLoRA's scale over the one that llama.cpp computes.
        value = value * ((3 / rank**0.5) / (3 / rank))
        if leaf in heads:
            value = value.reshape(heads[leaf], 2, -1, rank).transpose(1, 2).reshape(value.shape)
    writer.add_tensor(f"blk.{layer}.{names[leaf]}.weight.lora_{matrix}", value.contiguous().numpy())
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
