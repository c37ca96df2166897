"""Writes group-quantized.safetensors: packed matrices with the numbers that they stand for, and GPTQ's rounding.

Packing is done here bit by bit, from the definition: the values of one output along the inputs (of one group along the
outputs for zeros) are a string of bits, lowest bits first, cut into words of 32.

    python make_group_fixtures.py
"""

import numpy as np
import torch
from safetensors.numpy import save_file

random = np.random.default_rng(7)
tensors = {}


def pack(values, bits):
    """[n, m] of integers → int32 [n · bits / 32, m]."""
    n, m = values.shape
    words = np.zeros((n * bits // 32, m), dtype=np.uint32)
    for column in range(m):
        string = 0
        for i in range(n):
            string |= int(values[i, column]) << (i * bits)
        for word in range(words.shape[0]):
            words[word, column] = (string >> (32 * word)) & 0xFFFFFFFF
    return words.view(np.int32)


def case(name, bits, inputs, outputs, group, rows, order=None, real_zeros=False, offset=1):
    groups = -(-inputs // group)
    q = random.integers(0, 2**bits, (inputs, outputs))
    scales = (random.uniform(0.01, 0.1, (groups, outputs))).astype(np.float16)
    if bits == 4:
        scales[0, 0] = np.float16(3e-6)  # a subnormal half
    zeros = random.integers(1, 2**bits, (groups, outputs)).astype(np.float64)
    tensors[f"{name}.zeros"] = pack((zeros.astype(int) - offset).T, bits).T.copy()
    if real_zeros:
        zeros = (zeros + random.normal(0, 1, zeros.shape)).astype(np.float16).astype(np.float64)
        tensors[f"{name}.zeros"] = zeros.astype(np.float16)
    group_of = np.arange(inputs) // group
    if order:
        group_of = random.permutation(group_of)
        tensors[f"{name}.order"] = group_of.astype(np.int32)
    weight = (scales.astype(np.float64)[group_of] * (q - zeros[group_of])).T.copy()
    x = random.normal(0, 1, (rows, inputs)).astype(np.float32)
    upstream = random.normal(0, 1, (rows, outputs)).astype(np.float32)
    tensors[f"{name}.packed"] = pack(q, bits)
    tensors[f"{name}.scales"] = scales
    tensors[f"{name}.weight"] = weight.astype(np.float32)
    tensors[f"{name}.x"] = x
    tensors[f"{name}.upstream"] = upstream
    tensors[f"{name}.y"] = (x.astype(np.float64) @ weight.T).astype(np.float32)
    tensors[f"{name}.gradient"] = (upstream.astype(np.float64) @ weight).astype(np.float32)


for bits in (2, 3, 4, 8):
    case(f"bits-{bits}", bits, 96, 32, 32, 5)
case("one-row", 4, 64, 24, 32, 1)
case("many-rows", 4, 64, 40, 64, 13)
case("order", 4, 64, 16, 32, 3, order=True)
case("order-3", 3, 64, 32, 32, 3, order=True)
case("real-zeros", 4, 64, 16, 32, 4, real_zeros=True)
case("second-format", 4, 64, 16, 32, 2, offset=0)
case("column", 4, 64, 16, 64, 2)


# What GPTQ's cases share: inputs that depend on each other, and a weight. Whole numbers, so that the Hessian is exact.
INPUTS, OUTPUTS = 160, 8
mixing = random.integers(-1, 2, (INPUTS, INPUTS))
x = torch.from_numpy(np.clip(random.integers(-2, 3, (300, INPUTS)) @ mixing, -127, 127).astype(np.int8))
x[:, 5] = 0  # an input that is never used
original = torch.from_numpy(random.normal(0, 0.05, (OUTPUTS, INPUTS)).astype(np.float32))
original[3, :32] = original[3, :32].abs()  # a group on one side of 0
original[4, 32:64] = 0
tensors["round.x"], tensors["round.weight"] = x.numpy(), original.numpy().copy()
hessian = 2 * x.double().T @ x.double()


def gptq(name, bits, group, symmetric):
    """Algorithm 1 of Frantar et al. without its blocks, which change nothing but the speed."""
    steps = 2**bits - 1
    for kind in ("nearest", "gptq"):
        w = original.double().clone()
        h = hessian.clone()
        dead = torch.diag(h) == 0
        upper = torch.zeros_like(h)
        if kind == "gptq":
            w[:, dead] = 0
            h[dead, dead] = 1
            h += 0.01 * torch.mean(torch.diag(h)) * torch.eye(INPUTS, dtype=torch.double)
            upper = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
        q = torch.zeros(INPUTS, OUTPUTS, dtype=torch.uint8)
        scales, zeros = [], []
        for i in range(INPUTS):
            if i % group == 0:
                low = w[:, i : i + group].amin(1).clamp(max=0)
                high = w[:, i : i + group].amax(1).clamp(min=0)
                if symmetric:
                    high = torch.maximum(high, -low)
                    low = torch.where(low < 0, -high, low)
                empty = (low == 0) & (high == 0)
                low, high = torch.where(empty, -1.0, low), torch.where(empty, 1.0, high)
                scale = ((high - low) / steps).half().double()
                zero = torch.full_like(scale, (steps + 1) / 2) if symmetric else torch.round(-low / scale)
                if not symmetric:
                    one_sided = zero == 0
                    scale = torch.where(one_sided, (high / (steps - 1)).half().double(), scale)
                    zero = torch.where(one_sided, 1.0, zero).clamp(max=steps)
                scales.append(scale)
                zeros.append(zero)
            value = (torch.round(w[:, i] / scales[-1]) + zeros[-1]).clamp(0, steps)
            q[i] = value.to(torch.uint8)
            if kind == "gptq":
                error = (w[:, i] - scales[-1] * (value - zeros[-1])) / upper[i, i]
                w[:, i + 1 :] -= torch.outer(error, upper[i, i + 1 :])
        tensors[f"{name}.{kind}.integers"] = q.numpy()
        tensors[f"{name}.{kind}.scales"] = torch.stack(scales).numpy()
        tensors[f"{name}.{kind}.zeros"] = torch.stack(zeros).numpy()


gptq("round-4", 4, 32, False)
gptq("round-4-symmetric", 4, 32, True)
gptq("round-2", 2, 32, False)
gptq("round-column", 3, 160, False)

save_file(tensors, "group-quantized.safetensors")
