"""Writes small random Llamas as GPTQ and AWQ folders, with what transformers computes with the numbers they stand for.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_gptq_fixtures.py

`gptq/<name>/` holds `config.json`, `model.safetensors`, `expected.json` (rows, loss) and `expected.safetensors` (logits
of the target positions, the numbers of one projection). Rounding is to the nearest; packing is done here from the
formats' definitions:

- GPTQ: `qweight` int32 [in · bits / 32, out] and `qzeros` int32 [groups, out · bits / 32] are strings of bits, lowest
  first, along the inputs and along the outputs; zeros are stored less 1 in the first format; `g_idx` is each input's
  group; W[o, i] = scales[g, o] · (q[i, o] − zeros[g, o]).
- AWQ (GEMM): word w of `qweight` [in, out / 8] and `qzeros` [groups, out / 8] holds columns 8 w + 0, 2, 4, 6, 1, 3, 5, 7,
  lowest bits first.
"""
import json
import pathlib
import shutil

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent / "gptq"
SHAPE = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
             head_dim=16, max_position_embeddings=128, eos_token_id=1, bos_token_id=0, pad_token_id=0,
             rms_norm_eps=1e-5, tie_word_embeddings=False, rope_theta=500.0)
ROWS = [([2 + (i * 37) % 90 for i in range(23)], [5, 80, 33, 12, 1]),
        ([2 + (i * 53) % 90 for i in range(7)], [90, 2, 41, 7, 66, 23, 1]),
        ([2 + (i * 11) % 90 for i in range(30)], [1])]
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def strings(values, bits):
    """[n, m] → int32 [n · bits / 32, m], each column a string of bits."""
    n, m = values.shape
    words = np.zeros((n * bits // 32, m), dtype=np.uint32)
    for column in range(m):
        string = sum(int(values[i, column]) << (i * bits) for i in range(n))
        for word in range(len(words)):
            words[word, column] = (string >> (32 * word)) & 0xFFFFFFFF
    return torch.from_numpy(words.view(np.int32).copy())


def awq(values):
    words = np.zeros((values.shape[0], values.shape[1] // 8), dtype=np.uint32)
    for place, column in enumerate(AWQ_ORDER):
        words |= values[:, column::8].astype(np.uint32) << np.uint32(4 * place)
    return torch.from_numpy(words.view(np.int32).copy())


def rounded(weight, bits, group_of, symmetric):
    """q [in, out], scales and zeros [groups, out]."""
    steps = 2**bits - 1
    w = weight.T.double().numpy()
    groups = group_of.max() + 1
    scales, zeros = np.zeros((groups, w.shape[1])), np.zeros((groups, w.shape[1]))
    for g in range(groups):
        low, high = np.minimum(w[group_of == g].min(0), 0), np.maximum(w[group_of == g].max(0), 0)
        if symmetric:
            high = np.maximum(high, -low)
            low = -high
        scales[g] = ((high - low) / steps).astype(np.float16)
        zeros[g] = (steps + 1) / 2 if symmetric else np.clip(np.round(-low / scales[g]), 1, steps)
    q = np.clip(np.round(w / scales[group_of]) + zeros[group_of], 0, steps)
    return q.astype(int), scales, zeros


def write(name, config, layers=1, bits=4, group=32, symmetric=False, act_order=False, offset=1, real_zeros=False):
    torch.manual_seed(sum(map(ord, name)))
    random = np.random.default_rng(sum(map(ord, name)))
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **SHAPE)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * (4 if parameter.dim() == 2 else 1)).half())
    tensors = {}
    for path, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or path == "lm_head":
            continue
        inputs = module.in_features
        size = inputs if group == -1 else group
        group_of = np.arange(inputs) // size
        if act_order:
            group_of = random.permutation(group_of)
        q, scales, zeros = rounded(module.weight.data, bits, group_of, symmetric)
        if config["quant_method"] == "awq":
            tensors[f"{path}.qweight"], tensors[f"{path}.qzeros"] = awq(q), awq(zeros.astype(int))
        else:
            tensors[f"{path}.qweight"] = strings(q, bits)
            tensors[f"{path}.qzeros"] = strings((zeros.astype(int) - offset).T, bits).T.contiguous()
            tensors[f"{path}.g_idx"] = torch.from_numpy(group_of.astype(np.int32))
        tensors[f"{path}.scales"] = torch.from_numpy(scales.astype(np.float16))
        if real_zeros:
            zeros = (zeros + random.normal(0, 0.7, zeros.shape)).astype(np.float16).astype(float)
            tensors[f"{path}.zeros"] = torch.from_numpy(zeros.astype(np.float16))
        numbers = scales[group_of] * (q - zeros[group_of])
        module.weight.data = torch.from_numpy(numbers.T.copy()).float()
    for path, parameter in model.state_dict().items():
        if path.rsplit(".", 1)[0] + ".qweight" not in tensors:
            tensors[path] = parameter.half().contiguous()
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    text = dict(SHAPE, model_type="llama", num_hidden_layers=layers, quantization_config=config)
    (folder / "config.json").write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
    width = max(len(x + y) for x, y in ROWS)
    pad = lambda value, lists: torch.tensor([x + [value] * (width - len(x)) for x in lists])
    out = model(input_ids=pad(0, [x + y for x, y in ROWS]), attention_mask=pad(0, [[1] * len(x + y) for x, y in ROWS]),
                labels=pad(-100, [[-100] * len(x) + y for x, y in ROWS]))
    logits = torch.cat([out.logits[i, len(x) - 1: len(x + y) - 1] for i, (x, y) in enumerate(ROWS)])
    save_file({"logits": logits.detach().contiguous(), "k_proj": model.model.layers[0].self_attn.k_proj.weight.detach()},
              folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(dict(rows=ROWS, loss=out.loss.item()), sort_keys=True) + "\n")
    print(f"{name}: loss {out.loss.item():.4f}")


def gptq(bits=4, group=32, **more):
    return dict(quant_method="gptq", bits=bits, group_size=group, **more)


write("plain", gptq(sym=False, desc_act=False, checkpoint_format="gptq", damp_percent=0.01), layers=2)
write("act-order", gptq(sym=True, desc_act=True), symmetric=True, act_order=True)
write("second-format", gptq(3, sym=False, desc_act=False, checkpoint_format="gptq_v2"), bits=3, offset=0)
write("columns", gptq(8, -1, sym=True, desc_act=False), bits=8, group=-1, symmetric=True)
write("two-bits", gptq(2, 32, sym=False, desc_act=False), bits=2)
write("real-zeros", gptq(sym=False, desc_act=False, swift_peft_zeros="float16"), real_zeros=True)
write("awq", dict(quant_method="awq", bits=4, group_size=32, zero_point=True, version="gemm",
                  modules_to_not_convert=["lm_head"]))
