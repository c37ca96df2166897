"""Reads GGUF files that peft wrote of a model's folder with gguf-py and transformers.

    for t in f32 q8_0 q4_0; do peft quantize --model MODEL --to gguf-$t --output OUT/$t.gguf; done
    python check_gguf.py MODEL OUT

Blocks have to be those of gguf-py's own rounding, scores those of the folder, ids those of its tokenizer.
"""

import sys

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, quantize

folder, out = sys.argv[1:]
wide = {t.name: t for t in GGUFReader(f"{out}/f32.gguf").tensors}
for kind in (Type.Q8_0, Type.Q4_0):
    same = 0
    for t in GGUFReader(f"{out}/{kind.name.lower()}.gguf").tensors:
        if t.tensor_type not in (Type.Q8_0, Type.Q4_0): continue
        assert np.array_equal(t.data, quantize(np.array(wide[t.name].data), t.tensor_type)), t.name
        same += 1
    print(kind.name, same, "matrices are gguf-py's to the bit")
    assert same > 0
original = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
again = transformers.AutoModelForCausalLM.from_pretrained(out, gguf_file="f32.gguf", dtype=torch.float32).eval()
row = torch.tensor([[(7 * i + 3) % original.config.vocab_size for i in range(12)]])
with torch.no_grad(): a, b = original(row).logits, again(row).logits
difference = float((a - b).abs().max() / a.abs().max())
print("scores of transformers' GGUF reader differ by", difference)
assert difference < 1e-4
texts = ["Hello, wörld! 123456", "A small model reads small texts", "I'LL don't  two  spaces", "12 Äpfel"]
x = transformers.AutoTokenizer.from_pretrained(folder)
y = transformers.AutoTokenizer.from_pretrained(out, gguf_file="f32.gguf")
for text in texts:
    print(text, x(text).input_ids == y(text).input_ids)
