"""Writes a tensor of each type that GGUF files have here, and what gguf-py makes of it.

    pip install gguf numpy safetensors; python make_gguf_types.py
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGML_QUANT_SIZES, GGUFWriter, dequantize
from safetensors.numpy import save_file

COLUMNS = 256
# Where the halves of a block lie that scale it.
HALVES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
    Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0],
    # Its scale is a byte, a power of two.
    Type.MXFP4: [],
}

here = Path(__file__).parent
random = np.random.default_rng(7)
writer = GGUFWriter(here / "types.gguf", "llama")
writer.add_string("a.text", "grüße")
writer.add_array("a.texts", ["a", "ein Text", ""])
writer.add_array("a.numbers", [1.5, -2.5])
writer.add_array("a.lists", [[1, 2], [3]])
writer.add_bool("a.flag", True)
writer.add_int64("a.integer", -(2**40))
writer.add_float64("a.double", 0.1)
expected = {}
numbers = random.standard_normal((3, 5)).astype(np.float32)
for name, array in {"F32": numbers, "F16": numbers.astype(np.float16)}.items():
    writer.add_tensor(name, array)
    expected[name] = array.astype(np.float32)
narrow = (numbers.view(np.uint32) >> 16).astype(np.uint16)
writer.add_tensor("BF16", narrow.view(np.uint8), raw_dtype=Type.BF16)
expected["BF16"] = (narrow.astype(np.uint32) << 16).view(np.float32)
for kind, places in HALVES.items():
    block, size = GGML_QUANT_SIZES[kind]
    rows = 16 if kind == Type.Q2_K else 8
    blocks = random.integers(0, 256, (rows * COLUMNS // block, size), dtype=np.uint8)
    for place in places:
        scales = (random.standard_normal(len(blocks)) * 0.02).astype(np.float16)
        # Parts without a scale have a minimum alone.
        scales[place % 3 :: 11] = 0 if place == places[0] else 0.25
        blocks[:, place : place + 2] = scales[:, None].view(np.uint8)
    if not places: blocks[:, 0] = random.integers(110, 135, len(blocks))
    stored = blocks.reshape(rows, -1)
    writer.add_tensor(kind.name, stored, raw_dtype=kind)
    expected[kind.name] = dequantize(stored, kind).astype(np.float32)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
save_file(expected, here / "types.safetensors")
