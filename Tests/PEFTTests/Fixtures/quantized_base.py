"""The GPTQ folders of `make_gptq_fixtures.py` as models that Hugging Face PEFT takes for GPTQModel's.

GPTQModel itself asks for a GPU. PEFT looks for its class of projections alone, and that is given to it here: a
projection that computes with the numbers which the packed integers stand for.
"""
import json
import sys
import types

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from hugging_face import MODELS


class BaseQuantLinear(torch.nn.Module):
    def __init__(self, weight, qweight):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight_numbers", weight)
        self.register_buffer("qweight", qweight)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight_numbers)


def register():
    for name in ("gptqmodel", "gptqmodel.nn_modules", "gptqmodel.nn_modules.qlinear"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["gptqmodel.nn_modules.qlinear"].BaseQuantLinear = BaseQuantLinear
    import peft.tuners.lora.awq
    import peft.tuners.lora.gptq
    import peft.utils.other
    peft.utils.other.is_gptqmodel_available = lambda: False
    peft.tuners.lora.awq.is_gptqmodel_available = lambda: False
    peft.tuners.lora.gptq.is_gptqmodel_available = lambda: True


def bits_of(words, bits):
    """int32 [n, m] → [n · 32 / bits, m]."""
    strings = words.numpy().view(np.uint32).astype(object)
    out = np.zeros((len(strings) * 32 // bits, strings.shape[1]))
    for column in range(strings.shape[1]):
        string = sum(int(word) << (32 * i) for i, word in enumerate(strings[:, column]))
        out[:, column] = [(string >> (bits * i)) & (2**bits - 1) for i in range(len(out))]
    return out


def load(base):
    """The model in a folder such as `gptq/plain`, ready for `get_peft_model`."""
    register()
    fields = json.loads((MODELS / base / "config.json").read_text())
    settings = fields.pop("quantization_config")
    fields.pop("model_type")
    tensors = load_file(MODELS / base / "model.safetensors")
    model = LlamaForCausalLM(LlamaConfig(**fields)).eval()
    model.load_state_dict({k: v.float() for k, v in tensors.items() if v.dtype == torch.float16
                           and not k.endswith((".scales", ".zeros"))}, strict=False)
    offset = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1
    for path, module in list(model.named_modules()):
        if f"{path}.qweight" not in tensors:
            continue
        q = bits_of(tensors[f"{path}.qweight"], settings["bits"])
        zeros = bits_of(tensors[f"{path}.qzeros"].T.contiguous(), settings["bits"]).T + offset
        group = tensors[f"{path}.g_idx"].numpy()
        numbers = tensors[f"{path}.scales"].double().numpy()[group] * (q - zeros[group])
        parent = model.get_submodule(path.rsplit(".", 1)[0])
        weight = torch.from_numpy(numbers.T.copy()).float()
        setattr(parent, path.rsplit(".", 1)[1], BaseQuantLinear(weight, tensors[f"{path}.qweight"]))
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.config._name_or_path = model.name_or_path = base
    return model


def packed(data, labels=True):
    width = max(len(x + y) for x, y in data)
    pad = lambda lists, value: torch.tensor([x + [value] * (width - len(x)) for x in lists])
    batch = dict(input_ids=pad([x + y for x, y in data], 0), attention_mask=pad([[1] * len(x + y) for x, y in data], 0))
    if labels:
        batch["labels"] = pad([[-100] * len(x) + y for x, y in data], -100)
    return batch
