"""Writes small random encoders of further families, and decoders for embeddings, into `heads/`, in the form of `make_head_fixtures.py`.

    pip install torch transformers safetensors
    OMP_NUM_THREADS=1 python make_encoder_fixtures.py [NAME...]

Only the named ones, if there are any.
"""
import sys

from transformers import (AlbertConfig, BartConfig, DebertaV2Config, ElectraConfig, Gemma3TextConfig, MBartConfig, ModernBertConfig, MPNetConfig,
                          NomicBertConfig, Qwen3Config, XLMRobertaXLConfig)

from make_head_fixtures import SMALL, main

MODERN = dict(vocab_size=48, hidden_size=16, intermediate_size=20, num_attention_heads=4, max_position_embeddings=40,
              pad_token_id=0, bos_token_id=0, eos_token_id=1, cls_token_id=0, sep_token_id=1, local_attention=6)
DEBERTA = dict(SMALL, relative_attention=True, pooler_hidden_act="gelu", layer_norm_eps=1e-7)
DECODER = dict(vocab_size=48, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
               num_key_value_heads=2, max_position_embeddings=40, pad_token_id=0, bos_token_id=0, eos_token_id=1)
MODELS = {
    "modernbert": ModernBertConfig(**MODERN, num_hidden_layers=4),
    # The last layer has a window.
    "modernbert-mean": ModernBertConfig(**MODERN, num_hidden_layers=2, classifier_pooling="mean", norm_bias=True,
                                        attention_bias=True, mlp_bias=True, classifier_bias=True,
                                        classifier_activation="relu", hidden_activation="silu",
                                        rope_parameters=dict(
                                            full_attention=dict(rope_type="default", rope_theta=500.0),
                                            sliding_attention=dict(rope_type="default", rope_theta=100.0))),
    "electra": ElectraConfig(**SMALL, embedding_size=12),
    "albert": AlbertConfig(**SMALL | dict(num_hidden_layers=3), embedding_size=12, num_hidden_groups=2,
                           inner_group_num=2, classifier_dropout_prob=0.0),
    "mpnet": MPNetConfig(**SMALL),
    "xlm-roberta-xl": XLMRobertaXLConfig(**SMALL),
    "deberta-v2": DebertaV2Config(**DEBERTA, position_buckets=6, max_relative_positions=30, pos_att_type="p2c|c2p",
                                  share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False,
                                  type_vocab_size=0),
    "deberta-v2-convolution": DebertaV2Config(**DEBERTA, pos_att_type=["c2p", "p2c"], max_relative_positions=9,
                                              conv_kernel_size=3, conv_act="gelu", type_vocab_size=2,
                                              embedding_size=12),
    "nomic_bert": NomicBertConfig(**SMALL | dict(max_position_embeddings=64)),
}
# Qwen3-Embedding and EmbeddingGemma.
EMBEDDERS = {"qwen3-embedding": "last-token", "gemma3-embedding": "mean"}
MODELS["qwen3-embedding"] = Qwen3Config(**DECODER, head_dim=6)
MODELS["gemma3-embedding"] = Gemma3TextConfig(**DECODER, head_dim=8, query_pre_attn_scalar=12, sliding_window=7,
                                              use_bidirectional_attention=True, layer_types=[
                                                  "sliding_attention", "full_attention"])
STACKS = dict(vocab_size=48, d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4,
              decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=24, max_position_embeddings=40, dropout=0.0)
MODELS["bart"] = BartConfig(**STACKS)
MODELS["mbart"] = MBartConfig(**STACKS, scale_embedding=True)
# One task per kind of head.
TASKS = ["classification", "token-classification", "embeddings"]
PAIRS = ["electra", "albert", "nomic_bert", "deberta-v2-convolution"]

if __name__ == "__main__":
    main({name: model for name, model in MODELS.items() if name in sys.argv[1:] or not sys.argv[1:]}, PAIRS,
         EMBEDDERS, TASKS)
