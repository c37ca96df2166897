"""Writes present.pt and legacy.pt, the same tensors in both formats of torch.save, and what they hold as torch.safetensors.

    pip install torch safetensors
    python make_torch_fixtures.py
"""
import pathlib
from collections import OrderedDict

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
NAMES = "uint8 int8 int16 int32 int64 float16 float32 float64 bool bfloat16".split()

values = torch.arange(6).reshape(2, 3)
state = OrderedDict((f"a.{n}", (values % 2 if n == "bool" else values).to(getattr(torch, n))) for n in NAMES)
state["scalar"] = torch.tensor(3.5, dtype=torch.float64)
state["empty"] = torch.empty(0, 4)
state["größe"] = torch.tensor([-1.0, 0.0, 1.0])
# One storage under several views.
whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
state["shared.whole"] = whole
state["shared.tied"] = whole
state["shared.transposed"] = whole.transpose(0, 2)
state["shared.part"] = whole[1, 1:, ::2]
state["shared.rows"] = whole[1]
state["shared.repeated"] = whole[0, 0].expand(3, 4)
state["shared.column"] = whole[:, 1, 3]
state["parameter"] = torch.nn.Parameter(torch.tensor([[2.0], [5.0]]))
state["buffer"] = torch.nn.Parameter(torch.tensor([1.0, 2.0]), requires_grad=False).to(torch.bfloat16)
state._metadata = {"": {"version": 1}}

torch.save(state, HERE / "present.pt")
torch.save(
    {"epoch": 3, "rate": 1e-4, "name": "x", "done": False, "none": None, "state_dict": state},
    HERE / "legacy.pt",
    _use_new_zipfile_serialization=False,
)
save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, HERE / "torch.safetensors")
