"""Writes small random models as llama.cpp's converter would, and what transformers computes of the same files.

    pip install torch transformers gguf sentencepiece tokenizers; python make_gguf_models.py

Each file has a tokenizer of its family, trained on the lines below; expected.json has its ids of other lines.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, dequantize, quantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

here = Path(__file__).parent
LINES = [
    "A small model reads small texts, and writes what comes next.", "Wer liest, der weiß: 12 Äpfel kosten 345 Cent!",
    "def add(a, b):\n    return a + b\n", "It's said that they'll have read 1,024 lines by 2030.", "naïve café, €5 – “quoted”",
] * 20
TESTS = LINES[:5] + [
    "", " ", "  two  spaces ", "Hello, wörld! 🙂 123456", "tab\there\n\nand lines\n", "I'LL don't we've", "中文 text",
    "<s> and </s> in text", "x<|end|>y <|end|>", "é é",
]
CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
MODERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
expected = {}


def sentencepiece_tokens(prefix):
    with tempfile.TemporaryDirectory() as folder:
        stem = f"{folder}/m"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES), model_prefix=stem, vocab_size=380, model_type="bpe", byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=prefix,
            user_defined_symbols=["<|end|>"], minloglevel=2, character_coverage=0.99, allow_whitespace_only_pieces=True)
        model = sentencepiece.SentencePieceProcessor(model_file=stem + ".model")
    types = []
    for i in range(model.vocab_size()):
        kind = 1
        if model.is_unknown(i): kind = 2
        elif model.is_control(i): kind = 3
        elif model.is_byte(i): kind = 6
        elif model.id_to_piece(i) == "<|end|>": kind = 4
        types.append(kind)
    tokens = [model.id_to_piece(i) for i in range(model.vocab_size())]
    scores = [model.get_score(i) for i in range(model.vocab_size())]
    return model, tokens, scores, types


def add_sentencepiece(writer, prefix):
    model, tokens, scores, types = sentencepiece_tokens(prefix)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if not prefix: writer.add_add_space_prefix(False)
    # Plain texts alone: SentencePiece knows no special tokens in texts.
    rows = [t for t in TESTS if "<s>" not in t and "<|end|>" not in t and t]
    return len(tokens), [[t, [1] + model.encode(t)] for t in rows]


def add_bytes(writer, pre):
    splits = {
        "llama-bpe": pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(MODERN % "{1,3}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
        "qwen2": pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(MODERN % ""), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
        "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "smollm": pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    }
    own = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    own.pre_tokenizer = splits[pre]
    own.decoder = decoders.ByteLevel()
    if pre == "qwen2": own.normalizer = normalizers.NFC()
    own.train_from_iterator(LINES, trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    own.add_special_tokens(["<s>", "</s>"])
    own.add_tokens([AddedToken("<|end|>", normalized=False)])
    data = json.loads(own.to_str())
    size = own.get_vocab_size()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([own.id_to_token(i) for i in range(size)])
    writer.add_token_types([1] * (size - 3) + [3, 3, 4])
    writer.add_token_merges([" ".join(m) for m in data["model"]["merges"]])
    writer.add_bos_token_id(size - 3)
    writer.add_eos_token_id(size - 2)
    writer.add_eot_token_id(size - 1)
    writer.add_add_bos_token(pre == "llama-bpe")
    begin = [size - 3] if pre == "llama-bpe" else []
    return size, [[t, begin + own.encode(t).ids] for t in TESTS]


def neighbors(weight, heads):
    """Rows of q or k as llama.cpp wants them: the two halves of a head interleaved."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write(name, arch, config, tokenizer, kinds, rope_freqs=None, extra=lambda w: None, by_transformers=True):
    torch.manual_seed(3)
    path = here / f"{name}.gguf"
    writer = GGUFWriter(path, arch)
    writer.add_name(name)
    vocabulary, ids = tokenizer(writer)
    config.vocab_size = vocabulary
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    for parameter_name, p in model.named_parameters():
        torch.nn.init.normal_(p, std=0.1)
        if "norm" in parameter_name: p.data += 0 if arch.startswith("gemma") else 1
    writer.add_chat_template(CHAT)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    theta = config.rope_parameters
    writer.add_rope_freq_base((theta.get("full_attention") or theta)["rope_theta"])
    writer.add_vocab_size(vocabulary)
    extra(writer)
    layer = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm",
    }
    if arch in ("gemma2", "gemma3"):
        layer |= {
            "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        }
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    state = dict(model.named_parameters())
    for key, value in state.items():
        stem, kind = key.rsplit(".", 1)
        if stem in outer: target = f"{outer[stem]}.{kind}"
        else:
            _, _, number, rest = stem.split(".", 3)
            target = f"blk.{number}.{layer[rest]}.{kind}"
        array = value.detach().numpy().copy()
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(target.split(".")[-2])
        swaps = arch == "llama" and heads
        if swaps: array = neighbors(array, heads)
        if "norm" in target and arch.startswith("gemma"): array = array + 1
        stored = Type.F32 if array.ndim == 1 else kinds.get(target.split(".")[-2], Type.F32)
        if stored == Type.F32: writer.add_tensor(target, array)
        elif stored == Type.F16:
            array = array.astype(np.float16)
            writer.add_tensor(target, array)
        else:
            data = quantize(array, stored)
            writer.add_tensor(target, data, raw_dtype=stored)
            array = dequantize(data, stored)
        array = array.astype(np.float32)
        if swaps:
            array = array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        if "norm" in target and arch.startswith("gemma"): array = array - 1
        value.data = torch.from_numpy(array.copy())
    if rope_freqs is not None: writer.add_tensor("rope_freqs.weight", rope_freqs.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    row = torch.tensor([[(7 * i + 3) % vocabulary for i in range(12)]])
    with torch.no_grad():
        logits = model(row).logits[0]
        if by_transformers:
            other = transformers.AutoModelForCausalLM.from_pretrained(str(here), gguf_file=f"{name}.gguf", dtype=torch.float32, attn_implementation="eager").eval()
            difference = float((other(row).logits[0] - logits).abs().max() / logits.abs().max())
            print(name, "transformers' own reader differs by", difference)
            assert difference < 1e-4, name
    expected[name] = {"rows": row[0].tolist(), "ids": ids}
    logits_by_name[name] = logits[-4:].numpy()


logits_by_name = {}
small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128, tie_word_embeddings=True, attn_implementation="eager")
MIXED = {
    "attn_q": Type.Q4_0, "attn_k": Type.Q8_0, "attn_v": Type.F16, "attn_output": Type.Q5_1, "ffn_gate": Type.Q4_1,
    "ffn_up": Type.Q5_0, "ffn_down": Type.Q8_0, "token_embd": Type.Q8_0, "output": Type.Q8_0,
}
HALF = {name: Type.F16 for name in MIXED}
BYTES = {name: Type.Q8_0 for name in MIXED}
factors = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
               original_max_position_embeddings=8192)


def llama3_factors(size, base=10000.0):
    wave = 2 * np.pi * base ** (np.arange(0, size, 2) / size)
    smooth = (8192 / wave - 1) / 3
    between = 1 / ((1 - smooth) / 8 + smooth)
    return np.where(wave < 8192 / 4, 1.0, np.where(wave > 8192, 8.0, between))


write("llama", "llama", transformers.LlamaConfig(**{**small, "tie_word_embeddings": False}),
      lambda w: add_sentencepiece(w, True), MIXED, extra=lambda w: w.add_rope_dimension_count(8))
write("llama3", "llama", transformers.LlamaConfig(**small, head_dim=16, rope_parameters=factors),
      lambda w: add_bytes(w, "llama-bpe"), HALF, extra=lambda w: (w.add_key_length(16), w.add_value_length(16)),
      rope_freqs=llama3_factors(16), by_transformers=False)
write("qwen2", "qwen2", transformers.Qwen2Config(**small), lambda w: add_bytes(w, "qwen2"), MIXED)
write("qwen3", "qwen3", transformers.Qwen3Config(**small, head_dim=32), lambda w: add_bytes(w, "gpt-2"), MIXED,
      extra=lambda w: (w.add_key_length(32), w.add_value_length(32)), by_transformers=False)
narrow = small | dict(intermediate_size=32, num_key_value_heads=1, num_attention_heads=2)
write("gemma", "gemma", transformers.GemmaConfig(**narrow, head_dim=16), lambda w: add_sentencepiece(w, False), BYTES,
      extra=lambda w: (w.add_key_length(16), w.add_value_length(16)), by_transformers=False)
write("gemma2", "gemma2", transformers.Gemma2Config(
          **narrow, head_dim=16, query_pre_attn_scalar=16, sliding_window=4, attn_logit_softcapping=50.0,
          final_logit_softcapping=30.0),
      lambda w: add_sentencepiece(w, False), BYTES,
      extra=lambda w: (w.add_key_length(16), w.add_value_length(16), w.add_sliding_window(4),
                       w.add_attn_logit_softcapping(50.0), w.add_final_logit_softcapping(30.0)), by_transformers=False)
write("gemma3", "gemma3", transformers.Gemma3TextConfig(
          **{**narrow, "num_hidden_layers": 7}, head_dim=16, query_pre_attn_scalar=16, sliding_window=4),
      lambda w: add_bytes(w, "smollm"), BYTES,
      extra=lambda w: (w.add_key_length(16), w.add_value_length(16), w.add_sliding_window(4)), by_transformers=False)
(here / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=0))
save_file(logits_by_name, here / "logits.safetensors")
