"""Twenty steps of optimizers, by their reference implementations: optimizers.safetensors.

    python make_optimizers.py        # torch 2.13, peft 0.21.2, lion-pytorch 0.2, schedulefree 1.4, galore-torch 1.0,
                                     # apollo-torch 1.0

Gradients are exact in any arithmetic, as in make_adamw8bit.py. The parameters are tall, wide and square matrices, a vector and
a tensor of three axes. Muon's orthogonalization is in bf16, as PyTorch's; LoRA-FA's projection is in float32, which PEFT
computes in bf16 where that is available.
"""
import os
import sys
import types
import warnings

import torch
from safetensors.torch import save_file

STEPS = 20
SHAPES = [(20, 12), (12, 20), (16, 16), (7,), (2, 3, 4)]


def start(count):
    return ((torch.arange(count) * 5003 % 1024) - 512) / 512


def gradient(count, step):
    places = torch.arange(count)
    numbers = ((places * 7919 + step * 104729) % 2048 - 1024) / 1024
    return numbers * 2.0 ** -(places % 11).float()


def parameters(shapes=SHAPES):
    return [torch.nn.Parameter(start(torch.Size(shape).numel()).reshape(shape)) for shape in shapes]


def run(name, parameters, optimizers, tensors, finish=lambda: None):
    for step in range(1, STEPS + 1):
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.grad = gradient(parameter.numel(), step).reshape(parameter.shape)
        for optimizer in optimizers:
            optimizer.step()
    finish()
    for index, parameter in enumerate(parameters):
        tensors[f"{name}.{index}"] = parameter.detach().clone()


def main():
    warnings.simplefilter("ignore")
    tensors = {}

    from lion_pytorch import Lion

    own = parameters()
    run("lion", own, [Lion(own, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)], tensors)

    for name, adjust in [("muon", "match_rms_adamw"), ("muon-original", "original")]:
        own = parameters()
        matrices = [p for p in own if p.dim() == 2]
        others = [p for p in own if p.dim() != 2]
        run(
            name, own,
            [
                torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn=adjust),
                torch.optim.AdamW(others, lr=1e-2, weight_decay=0.1),
            ],
            tensors)

    from schedulefree import AdamWScheduleFree

    own = parameters()
    optimizer = AdamWScheduleFree(own, lr=1e-2, weight_decay=0.1, foreach=False)
    optimizer.train()
    run("schedule-free", own, [optimizer], tensors)
    optimizer.eval()
    for index, parameter in enumerate(own):
        tensors[f"schedule-free.average.{index}"] = parameter.detach().clone()

    import peft.optimizers.lorafa as lorafa

    lorafa.is_bf16_available = lambda: False
    own = parameters([(4, 12), (20, 4), (7,)])
    own[0].requires_grad_(False)
    group = {
        "params": own, "lr": 1e-2, "names": ["x.lora_A.weight", "x.lora_B.weight", "bias"], "scaling_factors": [2.0, 2.0, 2.0],
        "weight_decay": 0.1,
    }
    run("lora-fa", own, [lorafa.LoraFAOptimizer([group], eps=1e-8)], tensors)

    # Their 8-bit variants, which aren't used here, need bitsandbytes.
    for name in ["bitsandbytes", "bitsandbytes.functional", "bitsandbytes.optim", "bitsandbytes.optim.optimizer"]:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["bitsandbytes.optim.optimizer"].Optimizer2State = object
    sys.modules["bitsandbytes"].functional = sys.modules["bitsandbytes.functional"]

    from apollo_torch.apollo import AdamW as APOLLO
    from galore_torch.adamw import AdamW as GaLore

    def groups(own, **options):
        # One group per parameter keeps their order, from which APOLLO's seeds follow.
        return [{"params": [p], **(options if p.dim() == 2 else {})} for p in own]

    common = {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8}
    own = parameters()
    galore = {"rank": 4, "update_proj_gap": 8, "scale": 0.25, "proj_type": "std"}
    run("galore", own, [GaLore(groups(own, **galore), no_deprecation_warning=True, **common)], tensors)

    for name, options in [
        ("apollo", {"rank": 4, "scale": 1.0, "scale_type": "channel"}),
        ("apollo-mini", {"rank": 1, "scale": 128.0, "scale_type": "tensor"}),
    ]:
        own = parameters()
        options = {"proj": "random", "update_proj_gap": 8, "proj_type": "std", **options}
        run(name, own, [APOLLO(groups(own, **options), **common)], tensors)

    folder = os.path.dirname(os.path.abspath(__file__))
    save_file(tensors, os.path.join(folder, "optimizers.safetensors"))


if __name__ == "__main__":
    main()
