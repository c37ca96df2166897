"""Training speed and memory against Hugging Face PEFT: the same weights, examples, adapter and hyperparameters.

    make bench                                # creates the environment outside the checkout and runs this

    python training.py [CASE …] [--rounds 3] [--steps 8] [--batch 8] [--dialogues FILE.jsonl] [--write RESULTS.json]

Cases are named MODEL-METHOD[-lab]: `llama` is a Llama of 110 million parameters, `t5` has FLAN-T5-small's shape, `moe` is a
Qwen3 mixture of 32 experts, of which 4 compute a token, and `hybrid` a Qwen3.5 with gated delta nets; methods are lora, experts
(LoRA of attention and experts), full, prompt, prefix, ia3, norms and houlsby. PEFT pads examples to the longest of a batch; with `-lab`, inputs
and targets to 512. Weights are random, and examples are random ids with the lengths of the dialogues in words, times 1.35 for
subwords. Each round runs one side and then the other, each in its own process; the first quarter of the steps, at least two,
is warm-up. Tokens/s excludes padding. Before timing, both sides train four steps from the same adapter without dropout, and
their losses must agree to 1e-3 (if the method's random initialization can't be exchanged, only the first loss is compared,
which the adapter doesn't change).

On a GPU: --device cuda --precision bfloat16, with the cases llama1b-lora and llama8b-lora; --weights nf4 for QLoRA, where
PEFT's weights are quantized by bitsandbytes.
"""
import argparse
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
PROGRAM = os.environ.get("TRAINING_BENCHMARK", str(ROOT / ".build/release/training-benchmark"))


def llama(hidden, inner, layers, heads, key_heads, vocabulary):
    return dict(model_type="llama", vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner,
                num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=key_heads,
                max_position_embeddings=2048, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0)


MODELS = {
    "llama": llama(768, 2048, 12, 12, 12, 32000),
    "llama1b": llama(2048, 5632, 22, 32, 4, 32000),
    "llama8b": llama(4096, 14336, 32, 32, 8, 128256),
    "t5": dict(model_type="t5", vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8,
               num_heads=6, feed_forward_proj="gated-gelu", decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
               tie_word_embeddings=False, dropout_rate=0.0),
}
MODELS["moe"] = dict(
    llama(512, 1024, 8, 8, 4, 8192), model_type="qwen3_moe", head_dim=64, num_experts=32, num_experts_per_tok=4,
    moe_intermediate_size=256, decoder_sparse_step=1, norm_topk_prob=True)
MODELS["hybrid"] = dict(
    llama(512, 1536, 8, 8, 2, 8192), model_type="qwen3_5_text", head_dim=64, linear_num_key_heads=8,
    linear_num_value_heads=8, linear_key_head_dim=64, linear_value_head_dim=64, linear_conv_kernel_dim=4,
    full_attention_interval=4)
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# Projections of a hybrid's two kinds of attention.
HYBRID = [*ATTENTION, "in_proj_qkv", "in_proj_z", "out_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
DEFAULT = ["moe-lora", "moe-experts", "hybrid-lora", "llama-lora", "t5-lora", "t5-lora-lab", "llama-full", "llama-prompt", "llama-prefix", "llama-ia3",
           "llama-norms", "llama-houlsby"]


class Case:
    def __init__(self, name):
        self.name = name
        self.model, self.method, *rest = name.split("-")
        if self.model not in MODELS or rest not in ([], ["lab"]):
            sys.exit(f"unknown case '{name}': models are {', '.join(MODELS)}; methods follow after a hyphen")
        self.is_lab = bool(rest)
        self.is_t5 = self.model == "t5"

    def peft_config(self):
        """Hugging Face's configuration, or None where it has no such method."""
        import peft

        task = "SEQ_2_SEQ_LM" if self.is_t5 else "CAUSAL_LM"
        if self.method == "lora":
            rank = 32 if self.is_t5 else 16
            targets = {"t5": ["q", "v"], "moe": ATTENTION, "hybrid": HYBRID}.get(self.model, LINEARS)
            return peft.LoraConfig(r=rank, lora_alpha=32, target_modules=targets, lora_dropout=0.0, task_type=task)
        if self.method == "experts":
            return peft.LoraConfig(r=16, lora_alpha=32, target_modules=ATTENTION, target_parameters=EXPERTS,
                                   lora_dropout=0.0, task_type=task)
        if self.method == "prompt":
            return peft.PromptTuningConfig(num_virtual_tokens=20, task_type=task)
        if self.method == "prefix":
            return peft.PrefixTuningConfig(num_virtual_tokens=20, task_type=task)
        if self.method == "ia3":
            return peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"],
                                  task_type=task)
        return None

    def own_method(self):
        """The adapter that our side creates; none if it reads the adapter that Hugging Face wrote."""
        names = {"full": "full", "norms": "layernorm", "houlsby": "houlsby"}
        if self.method not in names and self.peft_config() is None:
            sys.exit(f"unknown method '{self.method}'")
        options = {"reduction": "12"} if self.method == "houlsby" else {}
        return {"method": names[self.method], "options": options} if self.method in names else {}

    def changes_nothing_at_first(self):
        return self.method in ("houlsby",)


def peer_model(case, folder, device, precision):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if case.is_t5 else AutoModelForCausalLM
    config = AutoConfig.for_model(**MODELS[case.model])
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(getattr(torch, precision))
        model = kind.from_config(config)
        torch.set_default_dtype(torch.float32)
    file = folder / "model" / "model.safetensors"
    if case.is_t5:
        model.config.scale_decoder_outputs = False
    if file.exists():
        from safetensors.torch import load_file

        state = load_file(file)
        if case.is_t5:
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(state["lm_head.weight"]))
        model.load_state_dict(state, strict=False)
    return model


def in_four_bits(model):
    """Every projection but the output layer in bitsandbytes' NF4 with double quantization."""
    import bitsandbytes as bnb
    import torch

    for name, linear in [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]:
        small = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, quant_type="nf4",
                                  compute_dtype=linear.weight.dtype, compress_statistics=True)
        small.weight = bnb.nn.Params4bit(linear.weight.data.cpu(), requires_grad=False, quant_type="nf4",
                                         compress_statistics=True).to(linear.weight.device)
        model.set_submodule(name, small)
    model.is_loaded_in_4bit = True
    return model


def make_inputs(case, folder, dialogues, count, options):
    """A random model, a new adapter and examples of random ids, in files that both sides read."""
    import torch
    from peft import get_peft_model
    from safetensors.torch import save_file

    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps(MODELS[case.model]))
    model = peer_model(case, folder, options.device, options.precision)
    if case.is_t5:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.05)
    if not options.random:
        state = {k: v.detach().clone().cpu().contiguous() for k, v in model.state_dict().items()
                 if not (case.is_t5 and "embed_tokens" in k)}
        save_file(state, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    if case.peft_config() is not None:
        get_peft_model(model, case.peft_config()).save_pretrained(folder / "adapter")
    random.seed(0)
    lengths = []
    for line in open(dialogues, encoding="utf-8"):
        row = json.loads(line)
        lengths.append((min(512, int(len(row["dialogue"].split()) * 1.35) + 12),
                        int(len(row["summary"].split()) * 1.35) + 2))
    random.shuffle(lengths)
    vocabulary = min(32000, MODELS[case.model]["vocab_size"])
    ids = lambda n: [random.randrange(3, vocabulary) for _ in range(n - 1)] + [1]
    rows = [dict(input=ids(n), target=ids(m)) for n, m in (lengths * (count // len(lengths) + 1))[:count]]
    (folder / "rows.json").write_text(json.dumps(rows))


class Houlsby:
    """Bottlenecks after both sublayers of each layer, as in Houlsby et al. 2019; PEFT has none."""

    def __init__(self, model, size, reduction):
        import torch

        self.parameters = []
        for layer in model.model.layers:
            for sublayer in (layer.self_attn.o_proj, layer.mlp.down_proj):
                down, up = torch.nn.Linear(size, size // reduction), torch.nn.Linear(size // reduction, size)
                torch.nn.init.zeros_(up.weight)
                torch.nn.init.zeros_(up.bias)
                self.parameters += [*down.parameters(), *up.parameters()]
                sublayer.register_forward_hook(
                    lambda module, inputs, y, down=down, up=up: y + up(torch.nn.functional.gelu(down(y))))


def peer_trained(case, folder, model):
    """The model with its trainable parameters."""
    from peft import PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict

    if case.method == "full":
        return model, list(model.parameters())
    for parameter in model.parameters():
        parameter.requires_grad = False
    if case.method == "norms":
        chosen = [p for name, p in model.named_parameters() if "norm" in name]
        for parameter in chosen:
            parameter.requires_grad = True
        return model, chosen
    if case.method == "houlsby":
        return model, Houlsby(model, MODELS[case.model]["hidden_size"], 12).parameters
    if case.method in ("prompt", "prefix"):
        # from_pretrained doesn't allow training these.
        model = get_peft_model(model, case.peft_config())
        set_peft_model_state_dict(model, load_peft_weights(folder / "adapter"))
    else:
        model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
    return model, [p for p in model.parameters() if p.requires_grad]


def peer_batch(case, part, device):
    import torch

    if case.is_t5:
        width = 512 if case.is_lab else max(len(r["input"]) for r in part)
        depth = 512 if case.is_lab else max(len(r["target"]) for r in part)
        pad = lambda ids, size, value: ids + [value] * (size - len(ids))
        return dict(
            input_ids=torch.tensor([pad(r["input"], width, 0) for r in part], device=device),
            attention_mask=torch.tensor([pad([1] * len(r["input"]), width, 0) for r in part], device=device),
            labels=torch.tensor([pad(r["target"], depth, -100) for r in part], device=device))
    width = 1024 if case.is_lab else max(len(r["input"]) + len(r["target"]) for r in part)
    ids, mask, labels = [], [], []
    for row in part:
        rest = width - len(row["input"]) - len(row["target"])
        ids.append(row["input"] + row["target"] + [0] * rest)
        mask.append([1] * (width - rest) + [0] * rest)
        labels.append([-100] * len(row["input"]) + row["target"] + [-100] * rest)
    return {key: torch.tensor(value, device=device)
            for key, value in (("input_ids", ids), ("attention_mask", mask), ("labels", labels))}


def peer(case, folder, options):
    """Hugging Face PEFT's side; prints one line of JSON."""
    import resource
    import time

    import torch

    torch.set_num_threads(options.threads)
    is_gpu = options.device != "cpu"
    model = peer_model(case, folder, options.device, options.precision)
    if options.weights == "nf4":
        model = in_four_bits(model)
    model, parameters = peer_trained(case, folder, model)
    if is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model.train()
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    rows = json.loads((folder / "rows.json").read_text())
    weights = torch.cuda.memory_allocated() if is_gpu else 0
    losses, seconds, tokens = [], [], []
    for step in range(options.steps):
        part = rows[step * options.batch:(step + 1) * options.batch]
        start = time.perf_counter()
        loss = model(**peer_batch(case, part, options.device)).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        if is_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        tokens.append(sum(len(r["input"]) + len(r["target"]) for r in part))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps(dict(losses=losses, seconds=seconds, tokens=tokens, weightBytes=weights,
                          peakBytes=torch.cuda.max_memory_allocated() if is_gpu else peak)))


def run_ours(case, folder, options, steps):
    settings = dict(steps=steps, batch=options.batch, threads=options.threads, device=options.device,
                    precision=options.precision, random=options.random, weights=options.weights, **case.own_method())
    (folder / "run.json").write_text(json.dumps(settings))
    return run([PROGRAM, str(folder)])


def run_peer(case, folder, options, steps, task="--peer"):
    command = [sys.executable, __file__, case.name, task, str(folder)]
    for name, value in dict(dialogues=options.dialogues, steps=steps, batch=options.batch, threads=options.threads,
                            device=options.device, precision=options.precision, weights=options.weights).items():
        command += [f"--{name}", str(value)] if value is not None else []
    return run(command + (["--random"] if options.random else []))


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    lines = result.stdout.splitlines()
    return json.loads(lines[-1]) if lines else None


def speed(result):
    warm = max(2, len(result["seconds"]) // 4)
    return sum(result["tokens"][warm:]) / sum(result["seconds"][warm:])


def compare(case, folder, options):
    """Alternating rounds of both sides: medians and ranges."""
    # In a separate process, which leaves nothing on the device.
    run_peer(case, folder, options, options.steps, "--make")
    difference = None
    if not options.random:
        mine, other = run_ours(case, folder, options, 4)["losses"], run_peer(case, folder, options, 4)["losses"]
        count = 1 if case.changes_nothing_at_first() else 4
        difference = max(abs(x - y) / y for x, y in zip(mine[:count], other[:count]))
        tolerance = 1e-3 if options.precision == "float32" else 1e-2
        if not difference <= tolerance:
            sys.exit(f"{case.name}: the losses differ by {difference:.1e}, ours {mine}, theirs {other}: "
                     "nothing is measured")
    rounds = []
    for number in range(options.rounds):
        mine, other = run_ours(case, folder, options, options.steps), run_peer(case, folder, options, options.steps)
        rounds.append(dict(ours=speed(mine), theirs=speed(other), oursPeak=mine["peakBytes"],
                           theirsPeak=other["peakBytes"], blas=mine["blas"], trained=mine["trained"]))
        print(f"  round {number + 1}: ours {rounds[-1]['ours']:.0f} tokens/s, {mine['peakBytes'] / 1e9:.2f} GB; "
              f"Hugging Face PEFT {rounds[-1]['theirs']:.0f} tokens/s, {other['peakBytes'] / 1e9:.2f} GB", flush=True)
    ratios = sorted(r["ours"] / r["theirs"] for r in rounds)
    shares = sorted(r["oursPeak"] / r["theirsPeak"] for r in rounds)
    print(f"{case.name}: {statistics.median(ratios):.2f}x tokens/s ({ratios[0]:.2f} … {ratios[-1]:.2f}), "
          f"{statistics.median(shares):.2f}x peak memory, losses differ by "
          f"{'(not compared)' if difference is None else f'{difference:.0e}'}", flush=True)
    return dict(case=case.name, difference=difference, ratio=statistics.median(ratios), ratios=ratios,
                memory=statistics.median(shares), rounds=rounds)


def product_rate(threads):
    """GFLOP/s of PyTorch's matmuls in the 110 M model's shapes, the best of several."""
    import time

    import torch

    torch.set_num_threads(threads)
    x, best = torch.randn(1700, 768), 0.0
    w = torch.randn(2048, 768)
    for _ in range(10):
        start = time.perf_counter()
        torch.nn.functional.linear(x, w)
        best = max(best, 2 * 1700 * 768 * 2048 / (time.perf_counter() - start) / 1e9)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"cases to run (default: {' '.join(DEFAULT)})")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--weights", choices=["nf4"], help="weight format of the frozen base model")
    parser.add_argument("--random", action="store_true", help="use random weights on each side instead of a file")
    parser.add_argument("--dialogues", default=str(ROOT / "Examples/dialogues/train.jsonl"))
    parser.add_argument("--write", metavar="FILE", help="add the results to this JSON file")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = [Case(name) for name in options.cases or DEFAULT]
    if options.make:
        rows = options.batch * max(options.steps, 4)
        return make_inputs(cases[0], pathlib.Path(options.make), options.dialogues, rows, options)
    if options.peer:
        return peer(cases[0], pathlib.Path(options.peer), options)
    if options.device == "cpu":
        print(f"{platform.processor() or platform.machine()}, {options.threads} threads; PyTorch's fp32 matmuls: "
              f"{product_rate(options.threads):.0f} GFLOP/s", flush=True)
    results = []
    for case in cases:
        print(case.name, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            results.append(compare(case, pathlib.Path(temporary) / case.name, options))
        if options.write:
            pathlib.Path(options.write).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
