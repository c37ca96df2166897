"""Writes python.safetensors with the reference writer, and reads swift.safetensors with the reference reader.

    PEFT_WRITE_FIXTURES=1 swift test --filter SafetensorsTests
    pip install torch safetensors
    python make_safetensors_fixtures.py
"""
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
NAMES = "uint8 int8 int16 int32 int64 float16 float32 float64 bool bfloat16".split()

values = torch.arange(6).reshape(2, 3)
tensors = {f"a.{n}": (values % 2 if n == "bool" else values).to(getattr(torch, n)) for n in NAMES}
tensors["scalar"] = torch.tensor(3.5, dtype=torch.float64)
tensors["empty"] = torch.empty(0, 4)
tensors['größe "1"\n'] = torch.tensor([-1.0, 0.0, 1.0])
save_file(tensors, HERE / "python.safetensors", metadata={"format": "pt"})

loaded = load_file(HERE / "swift.safetensors")
assert loaded.keys() == tensors.keys()
for name, tensor in tensors.items():
    assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape, name
    assert torch.equal(loaded[name], tensor), name
with safe_open(HERE / "swift.safetensors", "pt") as file:
    assert file.metadata() == {"format": "pt"}
print("swift.safetensors was read")
