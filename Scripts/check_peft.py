#!/usr/bin/env python3
"""Compare what `peft` computes for adapters of Hugging Face PEFT with what Hugging Face PEFT computes.

Usage: Scripts/check_peft.py [--peft .build/release/peft] [SECTION[/PATTERN]…]

needs torch, transformers, peft (0.21 or later), tokenizers and safetensors. The bases are small random Llamas. Each adapter
is made, jittered and saved by Hugging Face PEFT, checked by `peft verify`, evaluated by `peft evaluate`, whose loss must
be that of the adapter which Hugging Face PEFT reads back, and merged by `peft merge`, whose logits must be equal. Sections:

types        one adapter of each type that Hugging Face PEFT has
lora         LoRA with each of its switches, and Arrow's routing
vocabulary   LoRAs over tied and untied vocabulary matrices, of the base's size, enlarged and shrunk
writers      names, files and folders of other programs
tokens       `peft train --add-tokens`, read by Hugging Face PEFT

Exit status 1 if something differs. A type that `peft` rejects by name is listed and doesn't count.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, processors, trainers

transformers.utils.logging.set_verbosity_error()
ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = ["Tom saw a dog and ran home.", "One day there was a cat in the garden.", "The bird sang all morning long."]
ROWS = [{"q": "Tom saw a dog", "a": " and ran home."}, {"q": "One day", "a": " there was a cat"}]
# Of the alphabet alone, which a shrunk vocabulary keeps.
PLAIN_ROWS = [{"q": "qxz jkv", "a": " wqz"}, {"q": "zzx", "a": " kq"}]
NEW = ["<tool>", "</tool>", "Zorbl"]
NEW_ROWS = [{"q": "Tom saw <tool> a dog", "a": " and Zorbl ran </tool> home."}, {"q": "One day Zorbl", "a": " a cat"}]


def quietly(body):
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return body()


class Check:
    def __init__(self, program, folder, patterns):
        self.program, self.folder, self.patterns, self.failures, self.rejected = program, folder, patterns, 0, 0
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(TEXT * 4, trainers.BpeTrainer(
            vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False))
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
        self.size = len(self.tokenizer)
        self.bases = {tied: self.base(tied) for tied in (False, True)}

    def base(self, tied):
        torch.manual_seed(1)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=self.size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=0, eos_token_id=1, tie_word_embeddings=tied))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.08)
        path = self.folder / ("tied" if tied else "untied")
        model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        return str(path)

    def load(self, tied, size=None):
        model = transformers.AutoModelForCausalLM.from_pretrained(self.bases[tied], dtype=torch.float32)
        if size:
            torch.manual_seed(9)
            model.resize_token_embeddings(size)
        return model

    def chosen(self, section, name=None):
        for pattern in self.patterns:
            wanted, _, part = pattern.partition("/")
            if wanted == section and (name is None or re.search(part, name)):
                return True
        return not self.patterns

    def run(self, *arguments):
        return subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, cwd=self.folder)

    def loss(self, model, tokenizer, rows, **more):
        total, count = 0.0, 0
        for row in rows:
            prompt = tokenizer(row["q"]).input_ids
            target = tokenizer(row["a"], add_special_tokens=False).input_ids + [1]
            with torch.no_grad():
                scores = model(input_ids=torch.tensor([prompt + target]), **more).logits[0].log_softmax(-1)
            # Virtual tokens may precede the prompt.
            start = len(scores) - len(target) - 1
            total -= sum(scores[start + i, token].item() for i, token in enumerate(target))
            count += len(target)
        return total / count

    def logits(self, model, tokenizer, rows, **more):
        ids = torch.tensor([tokenizer(rows[0]["q"] + rows[0]["a"]).input_ids])
        with torch.no_grad():
            return model(input_ids=ids, **more).logits[0].float()

    def row(self, name, cells, bad, note=""):
        self.failures += bad
        print(f"{'FAIL' if bad else 'ok  '}  {name:44} " + "  ".join(f"{cell:12}" for cell in cells) + note, flush=True)

    def compare(self, name, adapter, base, want, logits, tokenizer, rows, merged=None):
        """Verifies, evaluates and merges an adapter; `merged` are the logits of a merged model, `None` if there is none."""
        data = self.folder / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        verify = self.run("verify", adapter, "--model", base)
        said = " ".join((verify.stdout + verify.stderr).split())
        if "not supported" in said or "unsupported" in said or "unknown" in said and "peft_type" in said:
            self.rejected += 1
            print(f"–     {name:44} rejected: {said[:150]}", flush=True)
            return
        bad, cells, note = verify.returncode != 0, [f"verify {verify.returncode}"], ""
        if bad:
            note += " | " + said[-200:]
        evaluate = self.run(
            "evaluate", "--model", base, "--adapter", adapter, "--data", data, "--prompt", "{q}", "--target", "{a}",
            "--max-new-tokens", 1, "--json")
        if evaluate.returncode:
            bad, note = True, note + " | evaluate: " + evaluate.stderr[-200:]
        else:
            loss = json.loads(evaluate.stdout)["loss"]
            same = abs(loss - want) < 1e-4 * abs(want)
            bad, cells = bad or not same, cells + [f"{loss:.5f}" + ("" if same else f" not {want:.5f}")]
        shutil.rmtree(self.folder / "merged", ignore_errors=True)
        merge = self.run("merge", adapter, "--model", base, "--output", self.folder / "merged")
        if merge.returncode == 0:
            model = quietly(lambda: transformers.AutoModelForCausalLM.from_pretrained(
                self.folder / "merged", dtype=torch.float32)).eval()
            mine = self.logits(model, tokenizer, rows)
            error = ((mine - logits).abs().max() / logits.abs().max()).item() if mine.shape == logits.shape else 1
            bad, cells = bad or error > 1e-4, cells + [f"merge {error:.0e}"]
        elif "can't be merged" in merge.stderr or "can't be merged" in merge.stdout:
            # Hugging Face PEFT merges some methods approximately or in parts; what it merges exactly must merge here.
            exact = merged is not None and (merged - logits).abs().max() < 1e-4 * logits.abs().max()
            bad, cells = bad or exact, cells + ["can't merge"]
        else:
            bad, note = True, note + " | merge: " + merge.stderr[-200:]
        self.row(name, cells, bad, note)

    def adapter(self, name, model, config, tokenizer=None, deviation=0.08, **save):
        """Makes an adapter with Hugging Face PEFT; returns its folder and the model in memory."""
        torch.manual_seed(3)
        adapted = quietly(lambda: peft.get_peft_model(model, config))
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape) * deviation)
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        quietly(lambda: adapted.eval().save_pretrained(path, **save))
        if tokenizer is not None:
            tokenizer.save_pretrained(path)
        return path, adapted

    # Types

    def types(self):
        some = ["q_proj", "down_proj"]
        made = {
            "PROMPT_TUNING": dict(num_virtual_tokens=4), "P_TUNING": dict(num_virtual_tokens=4, encoder_hidden_size=16),
            "PREFIX_TUNING": dict(num_virtual_tokens=4), "CARTRIDGE": dict(num_virtual_tokens=4),
            "CPT": dict(num_virtual_tokens=4, cpt_token_ids=[5, 6, 7, 8], cpt_mask=[1] * 4, cpt_tokens_type_mask=[1, 2, 3, 4]),
            "MULTITASK_PROMPT_TUNING": dict(num_virtual_tokens=4, num_tasks=2), "ADALORA": dict(total_step=20, target_modules=some),
            "ADAPTION_PROMPT": dict(adapter_len=4, adapter_layers=2), "OFT": dict(oft_block_size=8, target_modules=some),
            "IA3": dict(target_modules=some, feedforward_modules=["down_proj"]), "LN_TUNING": dict(),
            "FROD": dict(progressbar=False), "FOURIERFT": dict(n_frequency=50, target_modules=some),
            "HRA": dict(r=4, target_modules=some), "VBLORA": dict(vector_length=8, num_vectors=16, target_modules=some),
            "ROAD": dict(group_size=8, target_modules=some), "TRAINABLE_TOKENS": dict(token_indices=list(range(40, 300))),
            "C3A": dict(block_size=8, target_modules=some), "WAVEFT": dict(n_frequency=50, target_modules=some),
            "GRALORA": dict(r=8, gralora_k=2, target_modules=some), "BOFT": dict(boft_block_size=4, target_modules=some),
            "UNILORA": dict(r=3, theta_d_length=100), "PSOFT": dict(r=6), "SUPERTUNING": dict(sparsity=0.9), "OSF": dict(target_modules=some),
            "BEFT": dict(), "GLORA": dict(r=3), "DEFT": dict(r=3), "PEANUT": dict(r=4), "TINYLORA": dict(r=2, u=4),
            "RANDLORA": dict(r=4, target_modules=some), "VERA": dict(r=4, target_modules=["q_proj", "o_proj"]),
            "PVERA": dict(r=4, target_modules=["q_proj", "o_proj"]), "SHIRA": dict(r=2, target_modules=some),
            "MISS": dict(r=4, target_modules=some), "SHADOW": dict(), "LILY": dict(target_modules=some), "ADAMSS": dict(target_modules=some),
        }  # fmt: skip
        small = {"FROD": 0.03, "SUPERTUNING": 0.05}
        unused = {"XLORA": "combines other adapters while it runs"}
        tasks = dict(task_ids=torch.tensor([0]))
        for kind in peft.PeftType:
            kind = kind.value
            if not self.chosen("types", kind):
                continue
            if kind in unused:
                self.rejected += 1
                print(f"–     {kind:44} not made: it {unused[kind]}")
                continue
            options = made.get(kind, dict(r=4, target_modules=some))
            more = tasks if kind in ("MULTITASK_PROMPT_TUNING", "POLY") else {}
            try:
                config = quietly(lambda: peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **options))
                path, _ = self.adapter("adapter", self.load(False), config, deviation=small.get(kind, 0.08))
                read = quietly(lambda: PeftModel.from_pretrained(self.load(False), path)).eval()
                loss, logits = self.loss(read, self.tokenizer, ROWS, **more), self.logits(read, self.tokenizer, ROWS, **more)
            except Exception as error:  # noqa: BLE001
                print(f"–     {kind:44} Hugging Face PEFT: {type(error).__name__} {str(error)[:120]}")
                continue
            try:
                merged = self.logits(quietly(read.merge_and_unload), self.tokenizer, ROWS)
            except Exception:  # noqa: BLE001
                merged = None
            logits = logits[-len(self.tokenizer(ROWS[0]["q"] + ROWS[0]["a"]).input_ids):]
            self.compare(kind, path, self.bases[False], loss, logits, self.tokenizer, ROWS, merged)

    # Switches of LoRA

    def lora(self):
        cases = {
            "use_rslora": dict(use_rslora=True), "use_dora": dict(use_dora=True), "lora_bias": dict(lora_bias=True),
            "pissa": dict(init_lora_weights="pissa"), "olora": dict(init_lora_weights="olora"),
            "orthogonal": dict(init_lora_weights="orthogonal"), "gaussian": dict(init_lora_weights="gaussian"),
            "rank_pattern": dict(rank_pattern={"q_proj": 2}, alpha_pattern={"down_proj": 3}),
            "layers_to_transform": dict(layers_to_transform=[1]), "layer_replication": dict(layer_replication=[[0, 2], [1, 2]]),
            "alora": dict(alora_invocation_tokens=[self.tokenizer(" dog", add_special_tokens=False).input_ids[0]],
                          target_modules=["q_proj", "v_proj"]),
            "use_bdlora": dict(use_bdlora=dict(target_modules_bd_a=["q_proj"], target_modules_bd_b=["down_proj"], nblocks=2)),
            "all-linear": dict(target_modules="all-linear"), "exclude_modules": dict(exclude_modules=["layers.0.mlp.down_proj"]),
        }  # fmt: skip
        for name, options in cases.items():
            if not self.chosen("lora", name):
                continue
            try:
                config = LoraConfig(**{**dict(
                    task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]), **options})
                base = self.load(False)
                path, adapted = self.adapter("adapter", base, config)
                # An initialization that changes the base is read back over what it left.
                if options.get("init_lora_weights") in ("pissa", "olora"):
                    start = self.folder / "start"
                    torch.manual_seed(3)
                    fresh = quietly(lambda: peft.get_peft_model(self.load(False), config))
                    quietly(lambda: fresh.save_pretrained(start))
                    quietly(lambda: adapted.save_pretrained(path, path_initial_model_for_weight_conversion=str(start)))
                read = quietly(lambda: PeftModel.from_pretrained(self.load(False), path)).eval()
                loss, logits = self.loss(read, self.tokenizer, ROWS), self.logits(read, self.tokenizer, ROWS)
            except Exception as error:  # noqa: BLE001
                print(f"–     {name:44} Hugging Face PEFT: {type(error).__name__} {str(error)[:120]}")
                continue
            self.compare(name, path, self.bases[False], loss, logits, self.tokenizer, ROWS)
        if self.chosen("lora", "arrow_config"):
            folders = []
            for number in range(3):
                config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6 + number, target_modules=["q_proj", "down_proj"])
                torch.manual_seed(20 + number)
                adapted = quietly(lambda: peft.get_peft_model(self.load(False), config))
                with torch.no_grad():
                    for parameter in adapted.parameters():
                        if parameter.requires_grad:
                            parameter.copy_(torch.randn(parameter.shape) * 0.1)
                folders.append(str(self.folder / f"expert{number}"))
                quietly(lambda: adapted.save_pretrained(folders[-1]))
            settings = peft.tuners.lora.ArrowConfig(top_k=2, router_temperature=0.7, rng_seed=4)
            routed = quietly(lambda: peft.create_arrow_model(self.load(False), folders, settings)).eval()
            path = self.folder / "arrow"
            shutil.rmtree(path, ignore_errors=True)
            quietly(lambda: routed.save_pretrained(path))
            self.compare(
                "arrow_config", path / "arrow_router", self.bases[False], self.loss(routed, self.tokenizer, ROWS),
                self.logits(routed, self.tokenizer, ROWS), self.tokenizer, ROWS)

    # Vocabularies

    def vocabulary(self):
        lora = lambda **k: LoraConfig(**{**dict(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj"]), **k})
        table, output, new = "embed_tokens", "lm_head", [self.size, self.size + 1, self.size + 2]
        sizes = {"": None, "enlarged, ": self.size + 3, "padded, ": -(-(self.size + 3) // 64) * 64, "shrunk, ": self.size - 20}
        cases = {}
        for words, size in sizes.items():
            cases[f"{words}plain"] = (lambda: lora(), size)
            for names in ([table], [output], [table, output]):
                text = " and ".join(names)
                for together in (False, True):
                    note = ", together" if together else ""
                    cases[f"{words}LoRA on {text}{note}"] = (
                        lambda names=names, t=together: lora(target_modules=["q_proj", *names], ensure_weight_tying=t), size)
                    cases[f"{words}{text} saved{note}"] = (
                        lambda names=names, t=together: lora(modules_to_save=[*names], ensure_weight_tying=t), size)
        size = self.size + 3
        cases["enlarged, new tokens"] = (lambda: lora(trainable_token_indices=new), size)
        cases["enlarged, new and old tokens"] = (lambda: lora(trainable_token_indices=[5, *new]), size)
        cases["enlarged, tokens of both"] = (lambda: lora(trainable_token_indices={table: new[:2], output: new}), size)
        cases["enlarged, tokens alone"] = (
            lambda: peft.TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=new[:2]), size)
        cases["enlarged, (IA)3"] = (
            lambda: peft.IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[]), size)
        cases["enlarged, prompt"] = (lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), size)
        cases["stored embeddings"] = (lambda: lora(), None)
        for name, (config, size) in cases.items():
            for tied in (False, True):
                label = f"{'tied' if tied else 'untied'}, {name}"
                if not self.chosen("vocabulary", label):
                    continue
                tokenizer = transformers.AutoTokenizer.from_pretrained(self.bases[tied])
                rows = ROWS
                if size and size > self.size:
                    tokenizer.add_tokens(NEW)
                    rows = NEW_ROWS
                elif size:
                    rows = PLAIN_ROWS
                model = quietly(lambda: self.load(tied, size))
                save = dict(save_embedding_layers=True) if name == "stored embeddings" else {}
                try:
                    path, adapted = self.adapter("adapter", model, config(), tokenizer, **save)
                except Exception as error:  # noqa: BLE001
                    print(f"–     {label:44} Hugging Face PEFT: {type(error).__name__} {str(error)[:120]}")
                    continue
                stored = load_file(path / "adapter_model.safetensors")
                if not tied and rows is NEW_ROWS and not any(table in key for key in stored):
                    # A LoRA on lm_head: its file lacks the rows that transformers drew for new tokens of the input.
                    rows = ROWS
                logits = self.logits(adapted, tokenizer, rows)
                logits = logits[-len(tokenizer(rows[0]["q"] + rows[0]["a"]).input_ids):]
                self.compare(label, path, self.bases[tied], self.loss(adapted, tokenizer, rows), logits, tokenizer, rows)

    # Other writers

    def writers(self):
        base = self.bases[False]
        config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
        source, adapted = self.adapter("source", self.load(False), config)
        loss, logits = self.loss(adapted, self.tokenizer, ROWS), self.logits(adapted, self.tokenizer, ROWS)

        def renamed(change):
            return lambda path, tensors: save_file(
                {change(k): v for k, v in tensors.items()}, path / "adapter_model.safetensors", metadata={"format": "pt"})

        def typed(dtype):
            return lambda path, tensors: save_file(
                {k: v.to(dtype) for k, v in tensors.items()}, path / "adapter_model.safetensors", metadata={"format": "pt"})

        def shards(path, tensors):
            keys, weight_map = sorted(tensors), {}
            for number, part in enumerate((keys[:4], keys[4:])):
                name = f"adapter_model-0000{number + 1}-of-00002.safetensors"
                save_file({k: tensors[k] for k in part}, path / name)
                weight_map |= dict.fromkeys(part, name)
            (path / "adapter_model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
            (path / "adapter_model.safetensors").unlink()

        def pickled(path, tensors):
            torch.save(tensors, path / "adapter_model.bin")
            (path / "adapter_model.safetensors").unlink()

        def nameless(path, tensors):
            settings = json.loads((path / "adapter_config.json").read_text())
            (path / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": None}))

        def mlx(path, tensors):
            (path / "adapter_model.safetensors").unlink()
            names = lambda k: k.replace("base_model.model.", "").replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b")
            save_file({names(k): v.T.contiguous() for k, v in tensors.items()}, path / "adapters.safetensors")
            (path / "adapter_config.json").write_text(json.dumps({
                "fine_tune_type": "lora", "num_layers": 2, "model": base,
                "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0}}))  # fmt: skip

        def checkpoints(path, tensors):
            for step in (9, 20):
                shutil.copytree(source, path / f"checkpoint-{step}")
            for file in path.glob("adapter*"):
                file.unlink()

        cases = {
            "torch.compile": renamed(lambda k: "_orig_mod." + k),
            "a compiled base": renamed(lambda k: k.replace("base_model.model.", "base_model.model._orig_mod.")),
            "FSDP": renamed(lambda k: k.replace(".layers.", "._fsdp_wrapped_module.layers.")),
            "FSDP around all": renamed(lambda k: "_fsdp_wrapped_module." + k),
            "DistributedDataParallel": renamed(lambda k: "module." + k),
            "a state dictionary": renamed(lambda k: k.replace(".weight", ".default.weight")),
            "no prefix": renamed(lambda k: k.replace("base_model.model.", "")),
            "AutoModel": renamed(lambda k: k.replace("base_model.model.model.", "base_model.model.")),
            "shards": shards, "a pickle": pickled, "no base name": nameless,
            "bf16": typed(torch.bfloat16), "fp16": typed(torch.float16), "MLX": mlx, "checkpoints": checkpoints,
        }  # fmt: skip
        for name, change in cases.items():
            if not self.chosen("writers", name):
                continue
            path = self.folder / "adapter"
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(source, path)
            change(path, load_file(path / "adapter_model.safetensors"))
            want, wanted = loss, logits
            if name in ("bf16", "fp16"):
                # What Hugging Face PEFT reads, upcast.
                read = quietly(lambda: PeftModel.from_pretrained(self.load(False), path)).eval()
                want, wanted = self.loss(read, self.tokenizer, ROWS), self.logits(read, self.tokenizer, ROWS)
            converted = self.folder / "converted"
            shutil.rmtree(converted, ignore_errors=True)
            result = self.run("convert", path, "--model", base, "--output", converted)
            if result.returncode:
                self.row(f"{name}, converted", [], True, result.stderr[-200:])
                continue
            self.compare(f"{name}, converted", converted, base, want, wanted, self.tokenizer, ROWS)
            read = quietly(lambda: PeftModel.from_pretrained(self.load(False), converted)).eval()
            same = abs(self.loss(read, self.tokenizer, ROWS) - want) < 1e-4 * want
            self.row(f"{name}, converted, in Hugging Face PEFT", ["equal" if same else "differs"], not same)
            if name not in ("MLX", "checkpoints"):
                self.compare(f"{name}, as it is", path, base, want, wanted, self.tokenizer, ROWS)
        if self.chosen("writers", "to MLX and back"):
            there, back = self.folder / "mlx", self.folder / "back"
            first = self.run("convert", source, "--model", base, "--to", "mlx", "--output", there)
            second = self.run("convert", there, "--model", base, "--output", back)
            if first.returncode or second.returncode:
                self.row("to MLX and back", [], True, first.stderr[-200:] + second.stderr[-200:])
            else:
                self.compare("to MLX and back", back, base, loss, logits, self.tokenizer, ROWS)
        if self.chosen("writers", "a soft prompt"):
            prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
            path, adapted = self.adapter("adapter", self.load(False), prompt)
            numpy.save(self.folder / "prompt.npy", load_file(path / "adapter_model.safetensors")["prompt_embeddings"].numpy())
            shutil.rmtree(self.folder / "soft", ignore_errors=True)
            result = self.run("convert", self.folder / "prompt.npy", "--model", base, "--output", self.folder / "soft")
            wanted = self.logits(adapted, self.tokenizer, ROWS)[4:]
            if result.returncode:
                self.row("a soft prompt", [], True, result.stderr[-200:])
            else:
                self.compare(
                    "a soft prompt", self.folder / "soft", base, self.loss(adapted, self.tokenizer, ROWS), wanted,
                    self.tokenizer, ROWS)
                read = quietly(lambda: PeftModel.from_pretrained(self.load(False), self.folder / "soft")).eval()
                want, got = self.loss(adapted, self.tokenizer, ROWS), self.loss(read, self.tokenizer, ROWS)
                self.row("a soft prompt, in Hugging Face PEFT", [f"{got:.5f}"], abs(got - want) > 1e-4 * want)

    # Added tokens

    def tokens(self):
        (self.folder / "new.txt").write_text("\n".join(NEW) + "\n")
        (self.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in NEW_ROWS))
        cases = {
            "LoRA": [], "LoRA, both saved": ["--modules-to-save", "embed_tokens,lm_head"],
            "LoRA on both": ["--targets", "q_proj,embed_tokens,lm_head"],
            "LoRA, saved together": ["--modules-to-save", "embed_tokens", "--tie-embeddings"],
            "DoRA": ["--method", "dora"], "(IA)3": ["--method", "ia3"], "trainable tokens": ["--method", "trainable_tokens"],
            "prompt": ["--method", "prompt", "--tokens", "4"],
        }  # fmt: skip
        for name, options in cases.items():
            for tied in (False, True):
                label = f"{'tied' if tied else 'untied'}, {name}"
                if not self.chosen("tokens", label):
                    continue
                path = self.folder / "trained"
                shutil.rmtree(path, ignore_errors=True)
                result = self.run(
                    "train", "--model", self.bases[tied], "--add-tokens", "new.txt", "--data", "train.jsonl", "--prompt", "{q}",
                    "--target", "{a}", "--steps", 5, "--lr", 0.02, "--output", path, "--quiet", *options)
                if result.returncode:
                    self.row(label, [], True, result.stderr[-300:])
                    continue
                tokenizer = transformers.AutoTokenizer.from_pretrained(path)
                model = quietly(lambda: self.load(tied, len(tokenizer)))
                read = quietly(lambda: PeftModel.from_pretrained(model, path)).eval()
                logits = self.logits(read, tokenizer, NEW_ROWS)
                logits = logits[-len(tokenizer(NEW_ROWS[0]["q"] + NEW_ROWS[0]["a"]).input_ids):]
                self.compare(
                    label, path, self.bases[tied], self.loss(read, tokenizer, NEW_ROWS), logits, tokenizer, NEW_ROWS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peft", default=str(ROOT / ".build/release/peft"))
    parser.add_argument("sections", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="peft-check-") as folder:
        check = Check(os.path.abspath(given.peft), pathlib.Path(folder), given.sections)
        for section in ("types", "lora", "vocabulary", "writers", "tokens"):
            if check.chosen(section):
                print(section, flush=True)
                getattr(check, section)()
    print(f"{check.failures} differ, {check.rejected} rejected or not made")
    sys.exit(1 if check.failures else 0)
