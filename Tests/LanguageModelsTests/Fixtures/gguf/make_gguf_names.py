"""Writes which tensors and settings llama.cpp's converter makes of small decoders, for families whose files differ from
Llama's by more than names.

    pip install gguf safetensors; python make_gguf_names.py

names.json has, for each folder in ../decoders with the given changes of its config.json, the names in gguf-py's mapping
(TensorNameMap), shapes, and a weighted sum of the values, Σ (1 + i mod 97) xᵢ; and the settings by gguf-py's names. What
the converter does to tensors is written here again, as documented in the functions below.
"""

import json
from pathlib import Path

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, Keys, get_tensor_name_map
from safetensors.numpy import load_file

here = Path(__file__).parent
decoders = here.parent / "decoders"


def digest(x):
    x = np.asarray(x, dtype=np.float32)
    flat = x.reshape(-1).astype(np.float64)
    return [list(x.shape), float(((np.arange(flat.size) % 97 + 1) * flat).sum())]


def fused(x, heads, keys):
    """Rows of all queries, of all keys, of all values, in place of those of each key head's queries, key and value."""
    size = x.shape[0] // (heads + 2 * keys)
    parts = x.reshape(keys, heads // keys + 2, size, *x.shape[1:])
    rest = x.shape[1:]
    return np.concatenate([
        parts[:, :-2].reshape(heads * size, *rest), parts[:, -2].reshape(keys * size, *rest),
        parts[:, -1].reshape(keys * size, *rest)])


def stacked_norms(state):
    """One matrix of the norms of a layer's heads."""
    result, norms = {}, {}
    for name, x in state.items():
        stem, dot, rest = name.partition(".norms.")
        if dot: norms.setdefault(stem, {})[int(rest.split(".")[0])] = x
        else: result[name] = x
    return result | {f"{stem}.weight": np.stack([rows[i] for i in sorted(rows)]) for stem, rows in norms.items()}


def stacked_experts(state):
    result, experts = {}, {}
    for name, x in state.items():
        before, dot, rest = name.partition(".experts.")
        if dot and rest.split(".")[0].isdigit():
            expert, projection, kind = rest.split(".")
            experts.setdefault(f"{before}.experts.{projection}.{kind}", {})[int(expert)] = x
        else: result[name] = x
    return result | {name: np.stack([rows[i] for i in sorted(rows)]) for name, rows in experts.items()}


def gpt_oss(state, config):
    result = {}
    for name, x in state.items():
        if name.endswith("sinks"): result[name + ".weight"] = x
        elif name.endswith("down_proj_bias"): result[name.replace("_bias", ".bias")] = x
        elif name.endswith("down_proj"): result[name + ".weight"] = x.swapaxes(1, 2)
        elif name.endswith("gate_up_proj_bias"):
            for part, own in (("gate", x[:, ::2]), ("up", x[:, 1::2])):
                result[name.replace("gate_up_proj_bias", f"{part}_proj.bias")] = own
        elif name.endswith("gate_up_proj"):
            turned = x.swapaxes(1, 2)
            for part, own in (("gate", turned[:, ::2]), ("up", turned[:, 1::2])):
                result[name.replace("gate_up_proj", f"{part}_proj.weight")] = own
        else: result[name] = x
    return result


def deepseek(state, config):
    result = {}
    heads, plain, value = config["num_attention_heads"], config["qk_nope_head_dim"], config["v_head_dim"]
    for name, x in stacked_experts(state).items():
        if name.endswith("e_score_correction_bias"): result[name[: -len("_bias")] + ".bias"] = x
        elif name.endswith("kv_b_proj.weight"):
            both = x.reshape(heads, plain + value, x.shape[1])
            result[name.replace("kv_b_proj", "k_b_proj")] = both[:, :plain].swapaxes(1, 2)
            result[name.replace("kv_b_proj", "v_b_proj")] = both[:, plain:]
        else: result[name] = x
    return result


def fused_projections(state, config):
    heads = config["num_attention_heads"]
    keys = config.get("num_kv_heads", 1 if config["model_type"] == "falcon" else heads)
    result = {k: fused(x, heads, keys) if "query_key_value" in k else x for k, x in state.items()}
    if config["model_type"] == "bloom": return {k.removeprefix("transformer."): x for k, x in result.items()}
    return result


def sizes(c, layer_norm=None, rms=None, keys=True, heads_key="num_attention_heads", layers="num_hidden_layers"):
    """What the converter writes of most families."""
    result = {
        Keys.LLM.BLOCK_COUNT: c[layers], Keys.LLM.EMBEDDING_LENGTH: c["hidden_size"],
        Keys.LLM.FEED_FORWARD_LENGTH: c.get("intermediate_size", 4 * c["hidden_size"]), Keys.Attention.HEAD_COUNT: c[heads_key],
    }
    if "max_position_embeddings" in c: result[Keys.LLM.CONTEXT_LENGTH] = c["max_position_embeddings"]
    if keys: result[Keys.Attention.HEAD_COUNT_KV] = c.get("num_key_value_heads", c[heads_key])
    if layer_norm: result[Keys.Attention.LAYERNORM_EPS] = layer_norm
    if rms: result[Keys.Attention.LAYERNORM_RMS_EPS] = rms
    return result


def phi(c): return sizes(c, layer_norm=1e-5) | {Keys.Rope.DIMENSION_COUNT: int(0.5 * c["hidden_size"]) // c["num_attention_heads"]}


def starcoder2(c): return sizes(c, layer_norm=1e-5) | {Keys.Rope.FREQ_BASE: c["rope_theta"]}


def falcon(c):
    return sizes(c, layer_norm=1e-5, keys=False) | {
        Keys.LLM.CONTEXT_LENGTH: 2048, Keys.LLM.TENSOR_DATA_LAYOUT: "jploski", Keys.Attention.HEAD_COUNT_KV: c.get("num_kv_heads", 1)}


def gpt_neox(c):
    return sizes(c, layer_norm=1e-5, keys=False) | {
        Keys.Rope.DIMENSION_COUNT: int(c["rotary_pct"] * (c["hidden_size"] // c["num_attention_heads"])),
        Keys.LLM.USE_PARALLEL_RESIDUAL: c.get("use_parallel_residual", True)}


def bloom(c):
    c = c | {"hidden_size": c["n_embed"], "num_hidden_layers": c["n_layer"]}
    return sizes(c, layer_norm=1e-5)


def stablelm(c):
    return sizes(c, layer_norm=1e-5) | {
        Keys.Rope.DIMENSION_COUNT: int(c["partial_rotary_factor"] * (c["hidden_size"] // c["num_attention_heads"])),
        Keys.LLM.USE_PARALLEL_RESIDUAL: c.get("use_parallel_residual", False)}


def yarn(c):
    scaling = c.get("rope_scaling") or c["rope_parameters"]["full_attention"]
    return {Keys.Rope.SCALING_TYPE: "yarn", Keys.Rope.SCALING_FACTOR: scaling["factor"],
            Keys.Rope.SCALING_ORIG_CTX_LEN: scaling["original_max_position_embeddings"]}


def olmo3(c):
    return sizes(c, rms=1e-5) | yarn(c) | {
        Keys.Rope.FREQ_BASE: c["rope_theta"], Keys.Attention.SLIDING_WINDOW: c["sliding_window"],
        Keys.Attention.SLIDING_WINDOW_PATTERN: [(i + 1) % 4 != 0 for i in range(c["num_hidden_layers"])]}


def openai(c):
    return sizes(c, rms=1e-5) | yarn(c) | {
        Keys.Attention.KEY_LENGTH: c["head_dim"], Keys.Attention.VALUE_LENGTH: c["head_dim"],
        Keys.Rope.SCALING_YARN_BETA_FAST: 32.0, Keys.Rope.SCALING_YARN_BETA_SLOW: 1.0,
        Keys.Attention.SLIDING_WINDOW: c["sliding_window"], Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: c["intermediate_size"],
        Keys.LLM.EXPERT_COUNT: c["num_local_experts"], Keys.LLM.EXPERT_USED_COUNT: c["num_experts_per_tok"]}


def latent(c):
    result = sizes(c, rms=1e-6) | {
        Keys.Attention.HEAD_COUNT_KV: 1, Keys.LLM.LEADING_DENSE_BLOCK_COUNT: c["first_k_dense_replace"],
        Keys.LLM.VOCAB_SIZE: c["vocab_size"], Keys.Attention.Q_LORA_RANK: c["q_lora_rank"],
        Keys.Attention.KV_LORA_RANK: c["kv_lora_rank"], Keys.Attention.KEY_LENGTH: c["kv_lora_rank"] + c["qk_rope_head_dim"],
        Keys.Attention.VALUE_LENGTH: c["kv_lora_rank"],
        Keys.Attention.KEY_LENGTH_MLA: c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
        Keys.Attention.VALUE_LENGTH_MLA: c["v_head_dim"], Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: c["moe_intermediate_size"],
        Keys.LLM.EXPERT_COUNT: c["n_routed_experts"], Keys.LLM.EXPERT_USED_COUNT: c["num_experts_per_tok"],
        Keys.LLM.EXPERT_SHARED_COUNT: c["n_shared_experts"], Keys.LLM.EXPERT_WEIGHTS_SCALE: c["routed_scaling_factor"],
        Keys.Rope.DIMENSION_COUNT: c["qk_rope_head_dim"],
        # 1 for a softmax, 2 for sigmoids, whose weights are normalized by default.
        Keys.LLM.EXPERT_GATING_FUNC: 2 if c["model_type"] == "deepseek_v3" else 1}
    if c["model_type"] == "deepseek_v3":
        result |= yarn(c) | {
            Keys.LLM.EXPERT_WEIGHTS_NORM: True, Keys.LLM.EXPERT_GROUP_COUNT: c["n_group"],
            Keys.LLM.EXPERT_GROUP_USED_COUNT: c["topk_group"], Keys.Rope.SCALING_YARN_BETA_FAST: 32.0,
            Keys.Rope.SCALING_YARN_BETA_SLOW: 1.0, Keys.Rope.SCALING_YARN_LOG_MUL: 0.1 * c["rope_scaling"]["mscale_all_dim"]}
    return result


def granite_hybrid(state, config):
    result = {}
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    for name, x in state.items():
        if name.endswith("q_proj.weight") or name.endswith("k_proj.weight"):
            count = heads if "q_proj" in name else keys
            x = x.reshape(count, 2, x.shape[0] // count // 2, -1).swapaxes(1, 2).reshape(x.shape)
        elif name.endswith("conv1d.weight"): x = x.squeeze(1)
        elif name.endswith("A_log"): x = -np.exp(x[:, None])
        elif name.endswith(".D"): x = x[:, None]
        elif name.endswith("dt_bias"): name = name.replace("dt_bias", "dt_proj.bias")
        elif name.endswith("mamba.norm.weight"): x = x.reshape(config["mamba_n_groups"], -1)
        elif name.endswith("input_linear.weight"):
            layer, stem = name.split(".")[2], "shexp" if "shared_mlp" in name else "exps"
            for part, own in zip(("gate", "up"), np.split(x, 2, axis=-2)):
                result[f"blk.{layer}.ffn_{part}_{stem}.weight"] = own
            continue
        result[name] = x
    return result


def granite(c):
    heads = [0 if kind == "mamba" else c["num_key_value_heads"] for kind in c["layer_types"]]
    return sizes(c, rms=1e-6) | {
        Keys.Attention.HEAD_COUNT_KV: heads, Keys.Attention.SCALE: c["attention_multiplier"],
        Keys.LLM.EMBEDDING_SCALE: c["embedding_multiplier"], Keys.LLM.RESIDUAL_SCALE: c["residual_multiplier"],
        Keys.LLM.LOGIT_SCALE: c["logits_scaling"], Keys.LLM.EXPERT_COUNT: c["num_local_experts"],
        Keys.LLM.EXPERT_USED_COUNT: c["num_experts_per_tok"],
        Keys.LLM.EXPERT_SHARED_FEED_FORWARD_LENGTH: c["shared_intermediate_size"], Keys.SSM.CONV_KERNEL: 4,
        Keys.SSM.STATE_SIZE: c["mamba_d_state"], Keys.SSM.GROUP_COUNT: c["mamba_n_groups"],
        Keys.SSM.INNER_SIZE: 2 * c["hidden_size"], Keys.SSM.TIME_STEP_RANK: c["mamba_n_heads"],
        Keys.Rope.SCALING_FINETUNED: False}


def lfm2_layers(c): return [i not in c["full_attn_idxs"] if "full_attn_idxs" in c else c["layer_types"][i] == "conv" for i in range(c["num_hidden_layers"])]


def lfm2(c):
    size = c.get("block_ff_dim", c.get("intermediate_size"))
    if c["model_type"] == "lfm2" and c.get("block_auto_adjust_ff_dim", True):
        size = int(c.get("block_ffn_dim_multiplier", 1) * int(2 * size / 3))
        size = c.get("block_multiple_of", 256) * -(-size // c.get("block_multiple_of", 256))
    heads = [0 if is_convolution else c["num_key_value_heads"] for is_convolution in lfm2_layers(c)]
    result = sizes(c, rms=c.get("norm_eps", 1e-5)) | {
        Keys.LLM.FEED_FORWARD_LENGTH: size, Keys.Attention.HEAD_COUNT_KV: heads, Keys.LLM.VOCAB_SIZE: c["vocab_size"],
        Keys.ShortConv.L_CACHE: c.get("conv_L_cache", 3)}
    if c["model_type"] == "lfm2_moe":
        result |= {
            Keys.LLM.EXPERT_COUNT: c["num_experts"], Keys.LLM.EXPERT_USED_COUNT: c["num_experts_per_tok"],
            Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: c["moe_intermediate_size"],
            Keys.LLM.LEADING_DENSE_BLOCK_COUNT: c["num_dense_layers"], Keys.LLM.EXPERT_GATING_FUNC: 2}
    return result


def flat_convolutions(state, config):
    state = {k: x.squeeze(1) if "conv.conv" in k else x for k, x in stacked_experts(state).items()}
    # Names of the mapping for experts.
    renamed = lambda k: k.replace(".expert_bias", ".expert_bias.bias").removeprefix("model." if ".experts." in k else "")
    return {renamed(k): x for k, x in state.items()}


same = lambda state, config: state
heads = lambda state, config: stacked_norms(state)
even = dict(beta_fast=32, beta_slow=1, factor=4.0, mscale=0.7, mscale_all_dim=0.7, original_max_position_embeddings=32,
            type="yarn")
MODELS = {
    # folder: architecture, changes of config.json, what happens to tensors, settings
    "phi": (MODEL_ARCH.PHI2, {}, same, phi),
    "starcoder2": (MODEL_ARCH.STARCODER2, {"sliding_window": None}, same, starcoder2),
    "falcon": (MODEL_ARCH.FALCON, {}, fused_projections, falcon),
    "falcon-new": (MODEL_ARCH.FALCON, {}, fused_projections, falcon),
    "gpt-neox": (MODEL_ARCH.GPTNEOX, {}, fused_projections, gpt_neox),
    "bloom": (MODEL_ARCH.BLOOM, {}, fused_projections, bloom),
    "stablelm": (MODEL_ARCH.STABLELM, {}, heads, stablelm),
    "stablelm-parallel": (MODEL_ARCH.STABLELM, {}, heads, stablelm),
    "olmo3": (MODEL_ARCH.OLMO2, {"layer_types": None, "rope_scaling": None, "rope_parameters": dict(
        full_attention=dict(rope_type="yarn", rope_theta=300.0, factor=4.0, original_max_position_embeddings=32),
        sliding_attention=dict(rope_type="default", rope_theta=300.0))}, same, olmo3),
    "gpt_oss": (MODEL_ARCH.GPT_OSS, {"swiglu_limit": 7.0}, gpt_oss, openai),
    "granitemoehybrid": (MODEL_ARCH.GRANITE_HYBRID, {}, granite_hybrid, granite),
    "lfm2": (MODEL_ARCH.LFM2, {}, flat_convolutions, lfm2),
    "lfm2_moe": (MODEL_ARCH.LFM2MOE, {}, flat_convolutions, lfm2),
    "deepseek_v2": (MODEL_ARCH.DEEPSEEK2, {}, deepseek, latent),
    "deepseek_v3": (MODEL_ARCH.DEEPSEEK2, {"rope_scaling": even}, deepseek, latent),
}


def main():
    result = {}
    for name, (arch, changes, transform, settings) in MODELS.items():
        config = json.loads((decoders / name / "config.json").read_text()) | changes
        layers = config.get("num_hidden_layers", config.get("n_layer"))
        names = get_tensor_name_map(arch, layers)
        tensors = {}
        for key, x in transform(load_file(decoders / name / "model.safetensors"), config).items():
            # The older name of GPT-NeoX's output layer is in the mapping; the newer ones of others are, too.
            target = key if key.startswith("blk.") else names.get_name(key, try_suffixes=(".weight", ".bias"))
            assert target, (name, key)
            tensors[target] = digest(x)
        prefix = MODEL_ARCH_NAMES[arch]
        result[name] = dict(
            architecture=prefix, changes=changes, tensors=tensors,
            settings={key.format(arch=prefix): value for key, value in settings(config).items()})
        print(name, len(tensors))
    lines = ",\n".join(f'"{name}": {json.dumps(result[name], sort_keys=True)}' for name in sorted(result))
    (here / "names.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
