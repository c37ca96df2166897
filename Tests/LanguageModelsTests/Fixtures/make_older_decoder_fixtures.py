"""Writes small random decoders with layer norms, from GPT-J and OPT to StarCoder2, with what transformers computes with
them, as `make_decoder_fixtures.py` does for others.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_older_decoder_fixtures.py
"""
import copy
import json
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from make_decoder_fixtures import (END, HERE, VOCABULARY, generated, generated_together, inputs, losses, rows,
                                   target_logits)

IDS = dict(vocab_size=VOCABULARY, eos_token_id=END, bos_token_id=0, pad_token_id=0)
SHAPE = dict(IDS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=128)
GPT_NEOX = dict(SHAPE, model_type="gpt_neox", intermediate_size=20, rotary_pct=0.5, rotary_emb_base=500)
OPT = dict(SHAPE, model_type="opt", ffn_dim=20, max_position_embeddings=64, dropout=0.0)
# Six heads: with linear biases, two of them have slopes beside those of a power of two.
BLOOM = dict(IDS, model_type="bloom", n_embed=12, n_layer=2, num_attention_heads=6)
PHI = dict(SHAPE, model_type="phi", intermediate_size=20)
STABLELM = dict(SHAPE, model_type="stablelm", intermediate_size=20, num_key_value_heads=2, partial_rotary_factor=0.25)
STARCODER2 = dict(SHAPE, model_type="starcoder2", intermediate_size=20, num_attention_heads=4, num_key_value_heads=2)
FALCON = dict(IDS, model_type="falcon", hidden_size=12, num_hidden_layers=2, num_attention_heads=6)
GPTJ = dict(IDS, model_type="gptj", n_embd=16, n_layer=2, n_head=2, n_positions=64, rotary_dim=4, attn_pdrop=0.0,
            embd_pdrop=0.0, resid_pdrop=0.0)
MODELS = {
    # name: configuration, the model whose weights it uses
    "gpt-neox": (dict(GPT_NEOX), None),
    "gpt-neox-sequential": (dict(GPT_NEOX, use_parallel_residual=False, rotary_pct=1.0, rope_scaling=dict(
        type="linear", factor=3.0)), "gpt-neox"),
    "gpt-neox-new-keys": (dict(
        {k: v for k, v in GPT_NEOX.items() if "rotary" not in k}, num_hidden_layers=1, attention_bias=False,
        tie_word_embeddings=True, hidden_act="relu", rope_parameters=dict(
            rope_type="default", rope_theta=300.0, partial_rotary_factor=0.25)), None),
    "opt": (dict(OPT), None),
    "opt-projected": (dict(OPT, do_layer_norm_before=False, word_embed_proj_dim=12), None),
    "opt-plain": (dict(OPT, enable_bias=False, layer_norm_elementwise_affine=False,
                       activation_function="gelu", tie_word_embeddings=False), None),
    "opt-unnormed": (dict(OPT, num_hidden_layers=1, _remove_final_layer_norm=True), None),
    "bloom": (dict(BLOOM), None),
    "bloom-norm-residual": (dict(
        {k: v for k, v in BLOOM.items() if k not in ("n_embed", "num_attention_heads")}, hidden_size=12, n_head=6,
        apply_residual_connection_post_layernorm=True), "bloom"),
    "phi": (dict(PHI), None),
    "phi-head-norms": (dict(PHI, num_key_value_heads=1, qk_layernorm=True, hidden_act="gelu",
                            partial_rotary_factor=0.25), None),
    "stablelm": (dict(STABLELM), None),
    "stablelm-parallel": (dict(STABLELM, num_attention_heads=4, num_key_value_heads=2,
                               partial_rotary_factor=0.5, use_parallel_residual=True, use_qkv_bias=True,
                               qk_layernorm=True), None),
    "starcoder2": (dict(STARCODER2, sliding_window=5, rope_theta=500.0), None),
    "starcoder2-unbiased": (dict(STARCODER2, head_dim=6, use_bias=False,
                                 tie_word_embeddings=False, hidden_act="gelu"), None),
    "falcon": (dict(FALCON), None),
    "falcon-multi-query-alibi": (dict(FALCON, alibi=True), "falcon"),
    "falcon-new": (dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, rope_theta=500.0,
                        tie_word_embeddings=False), None),
    "falcon-new-one-norm": (dict(FALCON, num_hidden_layers=1, new_decoder_architecture=True, num_kv_heads=3, bias=True,
                                 num_ln_in_parallel_attn=1, ffn_hidden_size=20), None),
    # Twelve heads, whose slopes bfloat16 rounds.
    "falcon-alibi": (dict(FALCON, hidden_size=24, num_attention_heads=12, num_hidden_layers=1, alibi=True,
                          multi_query=False, parallel_attn=False, bias=True), None),
    "gptj": (dict(GPTJ), None),
    "gptj-whole": (dict(GPTJ, rotary_dim=8, n_inner=20, n_layer=1, activation_function="relu"), None),
}


def build(name, settings):
    config = AutoConfig.for_model(**copy.deepcopy(settings))
    # Falcon's attention that is written out adds linear biases twice.
    attention = "sdpa" if settings["model_type"] == "falcon" else "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()
    torch.manual_seed(sum(map(ord, name)))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = "norm" in key or ".ln_" in key
            scale = 0.4 if "embed" in key or "wte" in key else 0.25
            parameter.copy_(torch.randn_like(parameter) * scale + (1 if norm and key.endswith("weight") else 0))
    return model


def renamed(state, settings):
    """The names of published files, which differ from those of the current version of transformers."""
    old = lambda k: k.replace("lm_head.", "embed_out.") if settings["model_type"] == "gpt_neox" else k
    return {old(k): v for k, v in state.items()}


def main():
    for name, (settings, weights) in MODELS.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = build(weights or name, settings)
        if weights:
            state = {k.replace("embed_out.", "lm_head."): v
                     for k, v in load_file(HERE / weights / "model.safetensors").items()}
            assert not model.load_state_dict(state, strict=False).unexpected_keys
            model.tie_weights()
        else:
            state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
            if model.config.tie_word_embeddings:
                state.pop("lm_head.weight", None)
            save_file(renamed(state, settings), folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        data = rows(False)
        out = model(**inputs(model, data))
        out.loss.backward()
        tensors = {"gradient." + k: p.grad.clone().contiguous() for k, p in model.named_parameters()
                   if p.grad is not None}
        if weights:  # all gradients pass through these
            tensors = {k: v for k, v in tensors.items() if any(x in k for x in ("layers.0.", "h.0."))}
        tensors["logits"] = target_logits(model, out, data).detach().clone()
        save_file(tensors, folder / "expected.safetensors")
        model.zero_grad()
        curve, moved = losses(model, data, 0), losses(model, data, 1e-7)
        drift = max(abs(a - b) for a, b in zip(curve, moved)) / max(curve)
        assert drift < 1e-4, f"{name}: the curve is badly conditioned ({drift})"
        expected = dict(rows=data, loss=out.loss.item(), losses=curve, greedy=generated(model, data),
                        beams=generated(model, data, num_beams=3), together=generated_together(model, data))
        if weights:
            expected["weights"] = weights
        (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")
        print(f"{name}: loss {expected['loss']:.4f}, after 20 steps {curve[-1]:.4f}, drift {drift:.0e},",
              [len(x) for x in expected["greedy"]])


if __name__ == "__main__":
    main()
