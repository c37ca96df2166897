"""Steps of bitsandbytes' AdamW8bit on a CPU: adamw8bit.safetensors.

    python make_adamw8bit.py        # bitsandbytes 0.50, torch 2.15

Three parameters with gradients that are exact in any arithmetic: two with moments of 8 bits, one whose last block is
short, and one that is too small for them.
"""
import os

import bitsandbytes as bnb
import bitsandbytes.functional as functional
import torch
from safetensors.torch import save_file

STEPS = 20
SHAPES = [(70, 64), (4096,), (63, 65)]


def start(count):
    return ((torch.arange(count) * 5003 % 1024) - 512) / 512


def gradient(count, step):
    places = torch.arange(count)
    numbers = ((places * 7919 + step * 104729) % 2048 - 1024) / 1024
    return numbers * 2.0 ** -(places % 11).float()


tensors = {"signed": functional.create_dynamic_map(signed=True), "unsigned": functional.create_dynamic_map(signed=False)}
parameters = [torch.nn.Parameter(start(torch.Size(shape).numel()).reshape(shape)) for shape in SHAPES]
optimizer = bnb.optim.AdamW8bit(parameters, lr=1e-2, weight_decay=0.1)
for step in range(1, STEPS + 1):
    for parameter in parameters:
        parameter.grad = gradient(parameter.numel(), step).reshape(parameter.shape)
    optimizer.step()
for index, parameter in enumerate(parameters):
    tensors[f"{index}"] = parameter.detach().clone()
    state = optimizer.state[parameter]
    for name in ("state1", "state2", "absmax1", "absmax2"):
        if state["state1"].dtype == torch.uint8:
            tensors[f"{index}.{name}"] = state[name].clone()
save_file(tensors, os.path.join(os.path.dirname(os.path.abspath(__file__)), "adamw8bit.safetensors"))
