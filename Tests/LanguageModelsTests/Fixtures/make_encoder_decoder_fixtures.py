"""Writes small random encoder-decoders into `decoders/`, in the form of `make_decoder_fixtures.py`.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_encoder_decoder_fixtures.py [NAME...]

Only the named ones, if there are any.
"""
import copy
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM

import make_decoder_fixtures
from make_decoder_fixtures import END, HERE, VOCABULARY

SHAPE = dict(vocab_size=VOCABULARY, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
             decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=24, max_position_embeddings=64, dropout=0.0,
             attention_dropout=0.0, encoder_layerdrop=0.0, decoder_layerdrop=0.0, is_encoder_decoder=True,
             eos_token_id=END, bos_token_id=0, pad_token_id=0, forced_eos_token_id=END)
UMT5 = dict(model_type="umt5", vocab_size=VOCABULARY, d_model=16, d_kv=6, d_ff=20, num_layers=2, num_decoder_layers=2,
            num_heads=3, relative_attention_num_buckets=8, relative_attention_max_distance=20, dropout_rate=0.0,
            feed_forward_proj="gated-gelu", eos_token_id=END, pad_token_id=0, decoder_start_token_id=0,
            tie_word_embeddings=False, is_encoder_decoder=True)
MODELS = {
    # name: configuration, the model whose weights it uses
    "bart": (dict(SHAPE, model_type="bart", decoder_start_token_id=END), None),
    "bart-scaled": (dict(SHAPE, model_type="bart", decoder_start_token_id=END, scale_embedding=True,
                         activation_function="relu"), "bart"),
    "mbart": (dict(SHAPE, model_type="mbart", scale_embedding=True), None),
    "pegasus": (dict(SHAPE, model_type="pegasus", decoder_start_token_id=0, scale_embedding=True,
                     activation_function="relu"), None),
    "marian": (dict(SHAPE, model_type="marian", decoder_start_token_id=0, scale_embedding=True, d_model=18,
                    encoder_attention_heads=2, activation_function="swish"), None),
    # transformers doesn't read 'forced_eos_token_id' of this class.
    "m2m_100": ({key: value for key, value in dict(SHAPE, model_type="m2m_100", decoder_start_token_id=END).items()
                 if key != "forced_eos_token_id"}, None),
    "umt5": (UMT5, None),
    "umt5-tied": (dict(UMT5, tie_word_embeddings=True, num_layers=1, num_decoder_layers=1), None),
}

def build(name, settings):
    config = AutoConfig.for_model(**copy.deepcopy(settings))
    model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    torch.manual_seed(sum(map(ord, name)))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not parameter.requires_grad:  # computed positions
                continue
            scale = 0.4 if any(x in key for x in ("embed", "shared", "relative")) else 0.25
            parameter.copy_(torch.randn_like(parameter) * scale + ("norm" in key and key.endswith("weight")))
        for key, buffer in model.named_buffers():
            if key == "final_logits_bias":
                buffer.copy_(torch.randn_like(buffer) * 0.3)
        if name == "umt5":
            model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16) * 0.3)
    return model


def save(model, name):
    """As published files have them: the stacks' views of the embedding are left out, and so is a tied output layer."""
    state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items() if "embed_tokens" not in k}
    if name != "umt5":
        state.pop("lm_head.weight", None)
    save_file(state, HERE / name / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    make_decoder_fixtures.build = build
    for name, (settings, weights) in MODELS.items():
        if name in sys.argv[1:] or not sys.argv[1:]:
            make_decoder_fixtures.main({name: (settings, weights)})
            if not weights:
                save(build(name, settings), name)
