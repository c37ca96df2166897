"""Matrices as bitsandbytes rounds and stores them, beside what they stand for: stored-matrices.safetensors.

    python make_stored_fixtures.py        # bitsandbytes 0.50, torch 2.15, on a CPU
"""
import os

import bitsandbytes.functional as bnb
import torch
from bitsandbytes.backends.default import ops
from safetensors.torch import save_file

torch.manual_seed(20)
here = os.path.dirname(os.path.abspath(__file__))
tensors = {}


def midpoints(kind):
    """Numbers halfway between two codes, with their neighbors on both sides; 1 sets the scale."""
    code = bnb.get_4bit_type(kind, device="cpu").sort().values
    middle = (code[1:] + code[:-1]) / 2
    up, down = torch.nextafter(middle, torch.tensor(2.0)), torch.nextafter(middle, torch.tensor(-2.0))
    row = torch.cat([torch.ones(1), middle, up, down, code[:2]])
    return torch.stack([row, -row]).contiguous()


def awkward():
    rows = torch.randn(6, 64)
    rows[0] = 0  # a block of zeros
    rows[1] *= 1e30
    rows[2] *= 1e-36
    rows[3] = 1e-40  # below what has an inverse
    rows[4, 1:] = 0
    rows[5] = rows[5].abs()
    return rows


def numbers(codes, state):
    """What the codes mean, by bitsandbytes' plain form: its kernels for a CPU take another block's scale where a row
    isn't a whole number of blocks."""
    absmax = state.absmax
    if state.nested:
        absmax = bnb.dequantize_blockwise(absmax, state.state2) + state.offset
    with torch.compiler.set_stance("force_eager"):
        return ops._dequantize_4bit_compute(
            codes.flatten(), absmax, state.code, state.blocksize, state.shape, torch.float32)


cases = {
    "plain": torch.randn(24, 64).half().float(),
    "rest": torch.randn(7, 33).half().float(),  # an odd count, and a last block that isn't full
    "even-rest": torch.randn(5, 100).half().float(),
    "zero-rest": torch.cat([torch.randn(64), torch.zeros(26)]).reshape(9, 10),
    "awkward": awkward(),
}
for kind in ["nf4", "fp4"]:
    for name, weight in {**cases, "midpoints": midpoints(kind)}.items():
        blocks = [32, 64, 128] if name == "plain" else [64]
        for block in blocks:
            codes, state = bnb.quantize_4bit(weight, blocksize=block, quant_type=kind)
            key = f"{kind}.{name}.{block}"
            tensors[f"{key}.weight"] = weight.clone()
            tensors[f"{key}.codes"], tensors[f"{key}.scales"] = codes, state.absmax
            tensors[f"{key}.dense"] = numbers(codes, state)
# Scales that are rounded too, in two blocks of 256 of which one isn't full; and few.
for name, shape, spread in [("many", (90, 96), 0.7), ("few", (8, 48), 0.02), ("equal", (4, 64), None)]:
    weight = torch.randn(shape) * (torch.rand(shape[0], 1) * (spread or 0) + 0.1)
    if spread is None:
        weight = weight.sign()  # all scales are the mean
    weight = weight.half().float()
    codes, state = bnb.quantize_4bit(weight, blocksize=32, quant_type="nf4", compress_statistics=True)
    key = f"double.{name}.32"
    tensors[f"{key}.weight"] = weight.half()
    tensors[f"{key}.codes"], tensors[f"{key}.scales"] = codes, state.absmax
    tensors[f"{key}.nested"], tensors[f"{key}.map"] = state.state2.absmax, state.state2.code.clone()
    tensors[f"{key}.offset"] = state.offset.reshape(1)
    tensors[f"{key}.dense"] = numbers(codes, state).half()
    tensors[f"{key}.first"] = numbers(codes, state)[:2].contiguous()
# bitsandbytes' module hands halves to the function.
rows = torch.randn(6, 50)
rows[1] = 0
rows[2] *= 30000
rows[3, 0] = 65504
rows[4] *= 1e-6
codes, scales, _ = bnb.int8_vectorwise_quant(rows.half())
tensors |= {"int8.weight": rows, "int8.codes": codes, "int8.scales": scales}
tensors["nf4.table"] = bnb.get_4bit_type("nf4", device="cpu")
tensors["fp4.table"] = bnb.get_4bit_type("fp4", device="cpu")

save_file(tensors, os.path.join(here, "stored-matrices.safetensors"))
