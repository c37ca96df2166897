"""Writes a small mixture of experts in 8-bit floats, and the logits that transformers computes with its values.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_float8_fixtures.py
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent / "float8"
BLOCK = (16, 8)
CONFIG = dict(model_type="qwen3_moe", vocab_size=48, hidden_size=20, intermediate_size=24, moe_intermediate_size=12,
              num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_experts=3,
              num_experts_per_tok=2, decoder_sparse_step=1, norm_topk_prob=True, tie_word_embeddings=False,
              max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=0)


def quantize(weight):
    """Codes, and the scales of blocks, of which those at the edges are smaller; and the values."""
    rows, columns = weight.shape
    count = (-(-rows // BLOCK[0]), -(-columns // BLOCK[1]))
    scales = torch.zeros(count)
    codes = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn)
    values = torch.zeros_like(weight)
    for i in range(count[0]):
        for j in range(count[1]):
            place = (slice(i * BLOCK[0], (i + 1) * BLOCK[0]), slice(j * BLOCK[1], (j + 1) * BLOCK[1]))
            scales[i, j] = weight[place].abs().max() / 448
            codes[place] = (weight[place] / scales[i, j]).to(torch.float8_e4m3fn)
            values[place] = codes[place].float() * scales[i, j]
    return codes, scales, values


def main():
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**CONFIG), dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + ("norm" in name))
    tensors = {}

    def add(name, weight):
        codes, scales, values = quantize(weight)
        tensors[name] = codes
        tensors[name + "_scale_inv"] = scales
        weight.copy_(values)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            prefix, _, leaf = name.rpartition(".")
            if leaf in ("gate_up_proj", "down_proj"):
                parts = ["gate_proj", "up_proj"] if leaf == "gate_up_proj" else ["down_proj"]
                for expert, matrix in enumerate(parameter):
                    for part, own in zip(parts, matrix.chunk(len(parts))):
                        add(f"{prefix}.{expert}.{part}.weight", own)
            elif "_proj" in name:
                add(name, parameter)
            else:
                tensors[name] = parameter.detach().clone()
        ids = [3, 9, 40, 21, 7, 7, 30]
        logits = model(torch.tensor([ids])).logits[0]
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "model.safetensors", metadata={"format": "pt"})
    save_file({"logits": logits.contiguous(), "codes": torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()},
              HERE / "expected.safetensors")
    (HERE / "config.json").write_text(json.dumps(dict(CONFIG, quantization_config=dict(
        quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=list(BLOCK)))) + "\n")
    (HERE / "expected.json").write_text(json.dumps(dict(ids=ids)) + "\n")
    print(logits[0, :4])


if __name__ == "__main__":
    main()
