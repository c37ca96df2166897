"""Writes small random Llamas as folders of LLM Compressor (`quant_method` "compressed-tensors"), with the logits that
transformers computes with the numbers they stand for.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_compressed_tensors_fixtures.py

Rounding is to the nearest; packing is done here from the format's definition:

- pack-quantized: `weight_packed` int32 [out, in · bits / 32] is a string of bits along the inputs, lowest first, of q + 2^(bits − 1);
  `weight_shape` has [out, in], `weight_scale` is [out, groups], [out, 1] for channels; `weight_zero_point` int32
  [out · bits / 32, groups] is packed along the outputs; `weight_g_idx` is each input's group.
- int-quantized, float-quantized: `weight` int8 or e4m3 [out, in]; scales may be one number, or of blocks.

W = scale · (q − zero), with q and zero from −2^(bits − 1).
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent / "compressed-tensors"
SHAPE = dict(model_type="llama", vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
             num_attention_heads=2, num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
             tie_word_embeddings=True, eos_token_id=1, bos_token_id=0, pad_token_id=0)
IDS = [3, 9, 40, 21, 7, 7, 30]
INT4 = dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32, dynamic=False)
INT8 = dict(num_bits=8, type="int", symmetric=True, strategy="channel", group_size=None, dynamic=False)
FP8 = dict(num_bits=8, type="float", symmetric=True, strategy="tensor", dynamic=False)
TOKENS = dict(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
CASES = {
    # name: format, weights, scale dtype, changes of the model
    "packed": ("pack-quantized", INT4, torch.bfloat16, {}),
    "packed-zeros": ("pack-quantized", dict(INT4, symmetric=False), torch.float16, {}),
    "packed-ordered": ("pack-quantized", dict(INT4, symmetric=False, actorder="group"), torch.float32, {}),
    "packed-bytes": ("pack-quantized", INT8, torch.bfloat16, {}),
    # Rows that aren't whole words are dequantized.
    "packed-narrow": ("pack-quantized", dict(INT4, symmetric=False, group_size=12), torch.float32,
                      dict(hidden_size=24, intermediate_size=36, head_dim=12)),
    "integers": ("int-quantized", INT8, torch.bfloat16, {}),
    "integers-zeros": ("int-quantized", dict(INT8, symmetric=False), torch.float32, {}),
    "floats": ("float-quantized", FP8, torch.bfloat16, {}),
    "floats-channels": ("float-quantized", dict(FP8, strategy="channel"), torch.float32, {}),
    "floats-blocks": ("float-quantized", dict(FP8, strategy="block", block_structure=[24, 16]), torch.float32, {}),
}


def strings(values, bits):
    """[n, m] of values from 0 -> int32 [n, m · bits / 32], rounded up."""
    n, m = values.shape
    words = (m * bits + 31) // 32
    result = torch.zeros(n, words, dtype=torch.int64)
    for row in range(n):
        string = sum(int(values[row, i]) << (i * bits) for i in range(m))
        for word in range(words):
            result[row, word] = (string >> (32 * word)) & 0xFFFFFFFF
    return torch.where(result >= 2**31, result - 2**32, result).to(torch.int32)


def integers(weight, args, dtype, generator):
    """q [out, in], scales and zeros [out, groups], and each input's group."""
    outputs, inputs = weight.shape
    size = args["group_size"] or inputs
    group = torch.arange(inputs) // size
    if args.get("actorder") == "group": group = group[torch.randperm(inputs, generator=generator)]
    least, most = -2 ** (args["num_bits"] - 1), 2 ** (args["num_bits"] - 1) - 1
    groups = int(group.max()) + 1
    scales, zeros = torch.zeros(outputs, groups), torch.zeros(outputs, groups)
    for g in range(groups):
        own = weight[:, group == g]
        low, high = own.min(1).values.clamp(max=0), own.max(1).values.clamp(min=0)
        if args["symmetric"]:
            scales[:, g] = torch.maximum(-low, high) / ((most - least) / 2)
        else:
            scales[:, g] = (high - low) / (most - least)
            zeros[:, g] = (least - low / scales[:, g]).round().clamp(least, most)
    scales = scales.to(dtype)
    q = (weight / scales.float()[:, group] + zeros[:, group]).round().clamp(least, most)
    values = scales.float()[:, group] * (q - zeros[:, group])
    return q.to(torch.int8), scales, zeros.to(torch.int8), group, values


def quantize(stem, weight, format, args, dtype, generator):
    """The tensors of a projection, and its values."""
    bits = args["num_bits"]
    if args["type"] == "float":
        if args["strategy"] == "tensor":
            scales = (weight.abs().max() / 448).reshape(1)
            spread = scales.to(dtype).float().reshape(1, 1)
        elif args["strategy"] == "channel":
            scales = weight.abs().amax(1, keepdim=True) / 448
            spread = scales.to(dtype).float()
        else:
            rows, columns = args["block_structure"]
            count = (-(-weight.shape[0] // rows), -(-weight.shape[1] // columns))
            scales = torch.zeros(count)
            for i in range(count[0]):
                for j in range(count[1]):
                    block = weight[i * rows:(i + 1) * rows, j * columns:(j + 1) * columns]
                    scales[i, j] = block.abs().max() / 448
            spread = scales.to(dtype).float().repeat_interleave(rows, 0)[:weight.shape[0]]
            spread = spread.repeat_interleave(columns, 1)[:, :weight.shape[1]]
        codes = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors = {"weight": codes, "weight_scale": scales.to(dtype)}
        if args["strategy"] == "tensor": tensors["input_scale"] = torch.tensor([0.02], dtype=dtype)
        return {stem + k: v for k, v in tensors.items()}, codes.float() * spread
    q, scales, zeros, group, values = integers(weight, args, dtype, generator)
    tensors = {"weight_scale": scales}
    if format == "pack-quantized":
        offset = 2 ** (bits - 1)
        tensors["weight_packed"] = strings(q.long() + offset, bits)
        tensors["weight_shape"] = torch.tensor(weight.shape)
        if not args["symmetric"]:
            tensors["weight_zero_point"] = strings(zeros.T.long() + offset, bits).T.contiguous()
        if args.get("actorder") == "group": tensors["weight_g_idx"] = group.to(torch.int32)
    else:
        tensors["weight"] = q
        if not args["symmetric"]: tensors["weight_zero_point"] = zeros
    return {stem + k: v for k, v in tensors.items()}, values


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    for name, (format, args, dtype, changes) in CASES.items():
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        config = SHAPE | changes
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), dtype=torch.float32, attn_implementation="eager").eval()
        tensors = {}
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.copy_((torch.randn(parameter.shape, generator=generator) * 0.3 + ("norm" in key)).half())
                if "_proj" in key:
                    own, values = quantize(key[: -len("weight")], parameter.clone(), format, args, dtype, generator)
                    tensors |= own
                    parameter.copy_(values)
                else:
                    tensors[key] = parameter.detach().half()
            logits = model(torch.tensor([IDS])).logits[0]
        folder = HERE / name
        folder.mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
        save_file({"logits": logits.contiguous()}, folder / "expected.safetensors")
        group = dict(targets=["Linear"], weights=args, input_activations=TOKENS if "integers" in name else None,
                     output_activations=None)
        (folder / "config.json").write_text(json.dumps(dict(config, quantization_config=dict(
            quant_method="compressed-tensors", format=format, quantization_status="compressed", ignore=["lm_head"],
            kv_cache_scheme=None, config_groups=dict(group_0=group)))) + "\n")
        print(name, logits[0, :4].tolist())


if __name__ == "__main__":
    main()
