"""The initial weights: T5's own initialization, with heads that copy.

Pretraining is short, and a small model takes longest to learn copying: to continue in the source at the target's position. So
the initial weights already copy, roughly, and training refines it (an induction head; Olsson et al. 2022,
https://arxiv.org/abs/2209.11895). With x the normalized embedding of a token and P, Q, S orthogonal 64-dimensional
subspaces of the residual stream,

    encoder, first layer, head 0:   attends to the previous token (relative bias), reads P x and writes it into Q
    decoder, first two layers:      head 0 of the cross-attention queries with P x of the last generated token and matches Q
                                    of the source, at the token after it; it adds that token's identity in S to the residual
    decoder, all layers:            head 3 of the self-attention attends to the token itself and subtracts its identity

and the tied output layer then prefers the token that comes next in the source. All other heads are initialized as in T5.
"""

import math

import torch
from tokenizers import Tokenizer

D, HEAD = 256, 64


def embeddings(old_table, old, new, generator):
    """Embeddings for the new vocabulary from those of the old one: the vector of the same piece, or a mean of its pieces.

    They are centered and scaled to a standard deviation of 1, as the old ones share a large common component. Noise is added
    to a mean of pieces, to distinguish words that share pieces.
    """
    table = old_table - old_table.mean(0)
    first = torch.linalg.svd(table, full_matrices=False)[2][0]
    table = table - 0.8 * (table @ first)[:, None] * first
    unit = lambda rows: rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    known = old.get_vocab()
    result = torch.empty(new.get_vocab_size(), D)
    for piece, index in new.get_vocab().items():
        if piece in known:
            result[index] = unit(table[known[piece]])
            continue
        ids = old.encode(piece.replace("▁", " ").strip() or piece, add_special_tokens=False).ids
        chance = unit(torch.randn(D, generator=generator))
        result[index] = unit(0.6 * unit(table[ids].mean(0)) + 0.8 * chance) if ids else chance
    return result * math.sqrt(D)


def orthogonal(generator):
    return torch.linalg.qr(torch.randn(D, D, generator=generator))[0]


@torch.no_grad()
def initialize(model, table, seed=0, copying=True):
    """Fills a T5ForConditionalGeneration with these embeddings and the weights described above."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda tensor, std: tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
    for name, tensor in model.named_parameters():
        if name.endswith("layer_norm.weight"):
            tensor.fill_(1)
        elif name.endswith(".q.weight"):
            normal(tensor, (D * HEAD) ** -0.5)
        elif name.endswith((".o.weight", ".wo.weight")):
            normal(tensor, 0.5 * tensor.shape[1] ** -0.5)
        elif name.endswith((".k.weight", ".v.weight", ".wi_0.weight", ".wi_1.weight")):
            normal(tensor, D**-0.5)
        elif "relative_attention_bias" in name:
            normal(tensor, 0.05)
    model.shared.weight.copy_(table)
    # Initial attention biases. Buckets: 0 is the token itself, n the n-th before, 16 + n the n-th after (encoder).
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    bias[1, 0] = 7
    bias[17, 1] = 6
    bias[[2, 3, 4, 18, 19, 20], 2] = 3
    bias = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    bias[1, 0] = 4
    bias[[2, 3], 1] = 3
    bias[4:9, 2] = 2
    if not copying:
        return
    basis = orthogonal(generator)
    q, s1, p, s0 = basis.split(HEAD)
    head, last = slice(0, HEAD), slice(3 * HEAD, 4 * HEAD)
    attention = model.encoder.block[0].layer[0].SelfAttention
    attention.v.weight[head] = p
    attention.o.weight[:, head] = 1.5 * q.T
    for layer, subspace in zip(model.decoder.block, (s0, s1)):
        attention = layer.layer[1].EncDecAttention
        attention.q.weight[head] = SHARPNESS * p
        attention.k.weight[head] = q
        attention.v.weight[head] = subspace
        attention.o.weight[:, head] = GAIN * subspace.T
    # The tied output layer would prefer the last generated token: a head that attends to itself subtracts its identity.
    bias[0, 3] = 9
    for layer, subspace, growth in zip(model.decoder.block, (s0, s1, p, q), (1.0, 1.3, 1.6, 1.8)):
        attention = layer.layer[0].SelfAttention
        attention.v.weight[last] = subspace
        attention.o.weight[:, last] = -growth * subspace.T


SHARPNESS = 0.3
GAIN = 3.5
