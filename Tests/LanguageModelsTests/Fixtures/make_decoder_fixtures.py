"""Writes small random decoders (and an mT5) in Hugging Face's layout, with what transformers computes with them.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_decoder_fixtures.py

`decoders/<name>/` holds `config.json`, `expected.json` (rows, loss, losses of 20 training steps, generated ids) and
`expected.safetensors` (logits of the target positions, gradients). Weights are in `model.safetensors` there or, for a
variant whose shapes are those of another model, in the folder that `expected.json` names as `weights`. Configurations
are written as published files have them, older keys included. Dropout is 0.
"""
import copy
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

HERE = pathlib.Path(__file__).parent / "decoders"
END, VOCABULARY = 1, 96
SHAPE = dict(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=20, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, eos_token_id=END, bos_token_id=0, pad_token_id=0)
LLAMA = dict(SHAPE, model_type="llama", head_dim=4, rms_norm_eps=1e-5, tie_word_embeddings=False)
MISTRAL = dict(SHAPE, model_type="mistral", head_dim=4, rms_norm_eps=1e-5, tie_word_embeddings=False)
QWEN2 = dict(SHAPE, model_type="qwen2", tie_word_embeddings=True)
QWEN3 = dict(SHAPE, model_type="qwen3", head_dim=6, tie_word_embeddings=True)
GEMMA = dict(SHAPE, model_type="gemma", head_dim=8, hidden_act="gelu_pytorch_tanh")
GEMMA2 = dict(SHAPE, model_type="gemma2", head_dim=8, query_pre_attn_scalar=12, sliding_window=5,
              attn_logit_softcapping=2.0, final_logit_softcapping=3.0)
GEMMA3 = dict(SHAPE, model_type="gemma3_text", head_dim=8, query_pre_attn_scalar=12, sliding_window=5,
              sliding_window_pattern=3)
PHI3 = dict(SHAPE, model_type="phi3", rms_norm_eps=1e-5, tie_word_embeddings=False, num_attention_heads=2,
            num_key_value_heads=1)
GPT2 = dict(model_type="gpt2", vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=2, n_positions=64, eos_token_id=END,
            bos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
LONG = dict(short_factor=[1.0, 1.5], long_factor=[1.3, 4.0])
YARN = dict(rope_theta=500.0, factor=4.0, original_max_position_embeddings=32)
MODELS = {
    # name: configuration, the model whose weights it uses
    "llama": (dict(LLAMA, rope_theta=500.0), None),
    "llama-new-keys": (dict(LLAMA, rope_parameters=dict(rope_type="default", rope_theta=300.0)), "llama"),
    "llama-linear": (dict(LLAMA, rope_theta=500.0, rope_scaling=dict(type="linear", factor=3.0)), "llama"),
    "llama-dynamic": (dict(LLAMA, rope_theta=500.0, rope_scaling=dict(type="dynamic", factor=2.0)), "llama"),
    "llama-yarn": (dict(LLAMA, rope_parameters=dict(YARN, rope_type="yarn")), "llama"),
    "llama-yarn-scales": (dict(LLAMA, rope_theta=500.0, rope_scaling=dict(
        rope_type="yarn", factor=8.0, original_max_position_embeddings=16, beta_fast=4, beta_slow=0.5, mscale=0.7,
        mscale_all_dim=1.2, truncate=False)), "llama"),
    "llama-yarn-factor": (dict(LLAMA, rope_parameters=dict(YARN, rope_type="yarn", attention_factor=0.8)), "llama"),
    "llama-llama3": (dict(LLAMA, rope_theta=500.0, rope_scaling=dict(
        rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)), "llama"),
    "llama-longrope": (dict(LLAMA, rope_parameters=dict(
        LONG, rope_type="longrope", rope_theta=500.0, original_max_position_embeddings=64)), "llama"),
    "llama-biases": (dict(LLAMA, num_key_value_heads=4, num_hidden_layers=1, head_dim=6, attention_bias=True,
                          mlp_bias=True, tie_word_embeddings=True, hidden_act="gelu"), None),
    "mistral": (dict(MISTRAL, sliding_window=5), "llama"),
    "mistral-all": (dict(MISTRAL, sliding_window=None, rope_theta=1e6), "llama"),
    "qwen2": (dict(QWEN2, use_sliding_window=True, sliding_window=4, max_window_layers=1), None),
    "qwen2-types": (dict(QWEN2, use_sliding_window=True, sliding_window=7, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"]), "qwen2"),
    "qwen2-unused": (dict(QWEN2, use_sliding_window=False, sliding_window=4, max_window_layers=1), "qwen2"),
    "qwen3": (dict(QWEN3, use_sliding_window=True, sliding_window=4, max_window_layers=2, attention_bias=True,
                   rope_parameters=dict(YARN, rope_type="yarn")), None),
    "gemma": (dict(GEMMA), None),
    "gemma-old": (dict(GEMMA, hidden_act="gelu", num_key_value_heads=1, num_hidden_layers=1), None),
    "gemma2": (dict(GEMMA2), None),
    "gemma2-uncapped": (dict(GEMMA2, attn_logit_softcapping=None, final_logit_softcapping=None), "gemma2"),
    "gemma3": (dict(GEMMA3, rope_parameters=dict(
        full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
        sliding_attention=dict(rope_type="default", rope_theta=1e4))), None),
    "gemma3-old": (dict(GEMMA3, rope_scaling=dict(rope_type="linear", factor=8.0), rope_theta=1e5,
                        rope_local_base_freq=300.0, final_logit_softcapping=3.0), "gemma3"),
    "phi3": (dict(PHI3, partial_rotary_factor=0.5, sliding_window=6), None),
    "phi3-whole": (dict(PHI3, sliding_window=None, rope_theta=500.0), "phi3"),
    "phi3-longrope": (dict(PHI3, partial_rotary_factor=0.5, original_max_position_embeddings=16, rope_scaling=dict(
        LONG, type="longrope")), "phi3"),
    "phi3-su": (dict(PHI3, partial_rotary_factor=0.5, original_max_position_embeddings=64, rope_scaling=dict(
        LONG, type="su", original_max_position_embeddings=64)), "phi3"),
    "gpt2-inverse-layer": (dict(GPT2, scale_attn_by_inverse_layer_idx=True), None),
    "gpt2-upcast": (dict(GPT2, reorder_and_upcast_attn=True), "gpt2-inverse-layer"),
    "gpt2-unscaled": (dict(GPT2, scale_attn_weights=False), "gpt2-inverse-layer"),
    "mt5": (dict(model_type="mt5", vocab_size=VOCABULARY, d_model=16, d_kv=6, d_ff=20, num_layers=2,
                 num_decoder_layers=2, num_heads=3, relative_attention_num_buckets=8,
                 relative_attention_max_distance=20, dropout_rate=0.0, feed_forward_proj="gated-gelu", eos_token_id=END,
                 pad_token_id=0, decoder_start_token_id=0, tie_word_embeddings=False, is_encoder_decoder=True), None),
    "mt5-tied": (dict(model_type="mt5", vocab_size=VOCABULARY, d_model=16, d_kv=6, d_ff=20, num_layers=1, num_heads=3,
                      relative_attention_num_buckets=8, relative_attention_max_distance=20, dropout_rate=0.0,
                      feed_forward_proj="gated-gelu", eos_token_id=END, pad_token_id=0, decoder_start_token_id=0,
                      tie_word_embeddings=False, is_encoder_decoder=True), None),
}


def build(name, settings):
    config = AutoConfig.for_model(**copy.deepcopy(settings))
    maker = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if "vision_config" in settings:
        maker = AutoModelForImageTextToText
    # The attention that is written out, as only that one caps scores.
    model = maker.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    torch.manual_seed(sum(map(ord, name)))
    # These families' norms scale by 1 + w, but for the norms of linear attention.
    centered = any(x in settings["model_type"] for x in ("gemma", "qwen3_5", "qwen3_next"))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = "norm" in key or ".ln_" in key
            center = 0 if centered and "linear_attn" not in key else 1
            scale = 0.4 if any(x in key for x in ("embed", "wte", "wpe", "shared", "relative")) else 0.25
            parameter.copy_(torch.randn_like(parameter) * scale + (center if norm and key.endswith("weight") else 0))
        if name == "mt5":
            model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16) * 0.3)
    return model


def rows(seq2seq):
    generator = torch.Generator().manual_seed(5)
    ids = lambda n: torch.randint(2, VOCABULARY, (n,), generator=generator).tolist()
    return [(ids(n), ids(m - 1) + [END]) for n, m in [(13, 5), (6, 9), (20, 1)]]


def inputs(model, data):
    pad = lambda lists, value: torch.tensor([x + [value] * (max(map(len, lists)) - len(x)) for x in lists])
    if model.config.is_encoder_decoder:
        return dict(input_ids=pad([x for x, _ in data], 0), attention_mask=pad([[1] * len(x) for x, _ in data], 0),
                    labels=pad([y for _, y in data], -100))
    return dict(input_ids=pad([x + y for x, y in data], 0), attention_mask=pad([[1] * len(x + y) for x, y in data], 0),
                labels=pad([[-100] * len(x) + y for x, y in data], -100))


def target_logits(model, out, data):
    if model.config.is_encoder_decoder:
        return torch.cat([out.logits[i, : len(y)] for i, (_, y) in enumerate(data)])
    return torch.cat([out.logits[i, len(x) - 1: len(x + y) - 1] for i, (x, y) in enumerate(data)])


def losses(model, data, perturbation):
    """20 steps; `perturbation` moves the weights first, to see how well the curve is conditioned."""
    model = copy.deepcopy(model)
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * perturbation)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    result = []
    for step in range(20):
        optimizer.zero_grad()
        loss = model(**inputs(model, [data[step % 3], data[(step + 1) % 3]])).loss
        loss.backward()
        optimizer.step()
        result.append(loss.item())
    return result


def until_end(ids):
    return ids[: ids.index(END)] if END in ids else ids


def generated(model, data, **options):
    start = 1 if model.config.is_encoder_decoder else None
    return [until_end(model.generate(torch.tensor([x]), attention_mask=torch.ones(1, len(x), dtype=torch.long),
                                     max_new_tokens=12, do_sample=False, **options)[0, start or len(x):].tolist())
            for x, _ in data]


def generated_together(model, data):
    """All prompts as one batch, padded on the left."""
    width = max(len(x) for x, _ in data)
    ids = torch.tensor([[0] * (width - len(x)) + x for x, _ in data])
    mask = torch.tensor([[0] * (width - len(x)) + [1] * len(x) for x, _ in data])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
    return [until_end(x[width:].tolist()) for x in out]


def load_state(model, folder):
    state = load_file(folder / "model.safetensors")
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    model.tie_weights()


def save_state(model, folder, name):
    tied = model.config.tie_word_embeddings and name != "mt5"
    state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()
             if "embed_tokens" not in k or "shared.weight" not in model.state_dict()}
    if tied:
        state.pop("lm_head.weight", None)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def main(models=MODELS, load=load_state, save=save_state):
    for name, (settings, weights) in models.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = build(weights or name, settings)
        if weights:
            load(model, HERE / weights)
        else:
            save(model, folder, name)
        (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        data = rows(model.config.is_encoder_decoder)
        out = model(**inputs(model, data))
        out.loss.backward()
        tensors = {"gradient." + k: p.grad.clone().contiguous() for k, p in model.named_parameters() if p.grad is not None}
        if weights:  # all gradients pass through these
            tensors = {k: v for k, v in tensors.items() if any(
                x in k for x in ("layers.0.self_attn", "layers.0.linear_attn", "layers.0.conv", "layers.0.mamba",
                                 "layers.0.mixer", "h.0.attn"))}
        tensors["logits"] = target_logits(model, out, data).detach().clone()
        save_file(tensors, folder / "expected.safetensors")
        model.zero_grad()
        curve, moved = losses(model, data, 0), losses(model, data, 1e-7)
        drift = max(abs(a - b) for a, b in zip(curve, moved)) / max(curve)
        assert drift < 1e-4, f"{name}: the curve is badly conditioned ({drift})"
        expected = dict(rows=data, loss=out.loss.item(), losses=curve, greedy=generated(model, data),
                        beams=generated(model, data, num_beams=3))
        if not model.config.is_encoder_decoder:
            expected["together"] = generated_together(model, data)
        if weights:
            expected["weights"] = weights
        (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
        print(f"{name}: loss {expected['loss']:.4f}, after 20 steps {curve[-1]:.4f}, drift {drift:.0e},",
              [len(x) for x in expected["greedy"]])


if __name__ == "__main__":
    main()
