"""Writes pytorch-shards: the model of llama/ in bfloat16, in two of PyTorch's own files with an index.

    pip install torch safetensors
    python make_pytorch_fixtures.py
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).parent
folder = HERE / "pytorch-shards"
folder.mkdir(exist_ok=True)
shutil.copy(HERE / "llama" / "config.json", folder / "config.json")
tensors = {name: torch.nn.Parameter(tensor.bfloat16()) for name, tensor in load_file(HERE / "llama" / "model.safetensors").items()}
names = sorted(tensors)
shards = [names[: len(names) // 2], names[len(names) // 2 :]]
index = {"metadata": {"total_size": sum(2 * t.numel() for t in tensors.values())}, "weight_map": {}}
for number, shard in enumerate(shards, 1):
    file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
    # The first in the old format, the second in the present one.
    torch.save({name: tensors[name] for name in shard}, folder / file, _use_new_zipfile_serialization=number > 1)
    index["weight_map"].update({name: file for name in shard})
(folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
