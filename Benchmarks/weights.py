"""Memory, training-step time and decoding speed of quantized base models: a 110 M Llama with random weights.

    PEFT_BENCHMARKS=1 swift build -c release --product weights-benchmark
    python Benchmarks/weights.py [--rounds 3] [--kinds fp32,nf4,…] [--shape 1b]      # needs torch and safetensors

A format for the embedding table and the output layer may follow after a +: nf4+int8.
The formats alternate, one process each, and the best round counts, since other programs share the machine.
"""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = {
    "110m": dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
                 num_key_value_heads=12),
    "1b": dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
               num_key_value_heads=4),
}


def make(folder, shape):
    """A Llama in bf16, shard by shard."""
    config = dict(SHAPES[shape], model_type="llama", vocab_size=32000, max_position_embeddings=2048,
                  rms_norm_eps=1e-6, tie_word_embeddings=False, eos_token_id=2, bos_token_id=1)
    (folder / "config.json").write_text(json.dumps(config))
    h, f = config["hidden_size"], config["intermediate_size"]
    kv = h // config["num_attention_heads"] * config["num_key_value_heads"]
    torch.manual_seed(0)
    dtype = torch.float32 if shape == "110m" else torch.bfloat16
    draw = lambda *size: (torch.randn(size) * 0.02).to(dtype)
    shards = {"ends": {"model.embed_tokens.weight": draw(32000, h), "lm_head.weight": draw(32000, h),
                       "model.norm.weight": torch.ones(h, dtype=dtype)}}
    index = {}

    def write(name, tensors):
        file = f"model-{name}.safetensors"
        save_file(tensors, folder / file)
        index.update({key: file for key in tensors})

    write("ends", shards["ends"])
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        write(f"{layer:02d}", {
            at + "self_attn.q_proj.weight": draw(h, h), at + "self_attn.k_proj.weight": draw(kv, h),
            at + "self_attn.v_proj.weight": draw(kv, h), at + "self_attn.o_proj.weight": draw(h, h),
            at + "mlp.gate_proj.weight": draw(f, h), at + "mlp.up_proj.weight": draw(f, h),
            at + "mlp.down_proj.weight": draw(h, f), at + "input_layernorm.weight": torch.ones(h, dtype=dtype),
            at + "post_attention_layernorm.weight": torch.ones(h, dtype=dtype)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default="fp32,bf16,int8,nf4,nf4-double,nf4+bf16,nf4+int8")
    parser.add_argument("--shape", choices=SHAPES, default="110m")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--program", default=str(ROOT / ".build/release/weights-benchmark"))
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    best = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        make(folder, arguments.shape)
        for _ in range(arguments.rounds):
            for kind in kinds:
                run = [arguments.program, folder, kind, arguments.rows, arguments.length, arguments.steps]
                out = json.loads(subprocess.run(list(map(str, run)), check=True, capture_output=True).stdout)
                known = best.setdefault(kind, out)
                for key in ["stepSeconds", "tokenSeconds", "peakBytes"]:
                    known[key] = min(known[key], out[key])
    first = best[kinds[0]]
    name = lambda kind: kind.replace("+", ", embeddings and head ")
    print("| weights | projections | model | peak, loading | peak, training | step | tokens/s | first loss |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, row in best.items():
        ratio = lambda key: f"({row[key] / first[key]:.3f})"
        print(f"| {name(kind)} | {row['projectionBytes'] / 1e6:.0f} MB {ratio('projectionBytes')} "
              f"| {row['modelBytes'] / 1e6:.0f} MB {ratio('modelBytes')} | {row['loadedBytes'] / 1e6:.0f} MB "
              f"| {row['peakBytes'] / 1e6:.0f} MB | {row['stepSeconds']:.2f} s {ratio('stepSeconds')} "
              f"| {1 / row['tokenSeconds']:.1f} (×{first['tokenSeconds'] / row['tokenSeconds']:.2f}) "
              f"| {row['losses'][0]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
