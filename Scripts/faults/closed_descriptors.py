#!/usr/bin/env python3
"""Runs every command with standard streams that are closed, full, or a closed pipe. No command may end by a signal or
overwrite a file of the model. Lost results are errors; lost progress output is not."""
import subprocess

from faults import SMALL, TEMPLATES, Faults, digest, remove

faults = Faults(__doc__, count=1)
model = faults.folder / "model"
subprocess.run(["cp", "-r", str(SMALL), str(model)], check=True)
faults.need(*faults.train("adapter", "--steps", "1", model="model"))
faults.need(*faults.train("prompt", "--steps", "1", "--method", "prompt", model="model"))
rows = ["--data", "rows.jsonl", "--limit", "4"]
short = ["--max-new-tokens", "2"]
comparison = ["--model", "model", *rows, "--test", "rows.jsonl", "--limit-test", "2", *TEMPLATES, *short, "--lr", "1e-3",
              "--steps", "1", "--batch-size", "2"]
bert = faults.folder / "bert"
subprocess.run(["cp", "-r", str(SMALL.parents[4] / "Tests/LanguageModelsTests/Fixtures/heads/bert"), str(bert)], check=True)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"word{i}" for i in range(5, 48)]
(bert / "vocab.txt").write_text("\n".join(words))
(bert / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')

# Each command with the option that names its output, if any.
commands = {
    "train": ["train", "--model", "model", *rows, *TEMPLATES, "--steps", "2", "--output", "out"],
    "train --json": ["train", "--model", "model", *rows, *TEMPLATES, "--steps", "2", "--output", "out", "--json"],
    "evaluate": ["evaluate", "--adapter", "adapter", *rows, *short],
    "evaluate --json": ["evaluate", "--adapter", "adapter", *rows, *short, "--json"],
    "generate": ["generate", "--adapter", "adapter", *short, "Tom"],
    "generate --json": ["generate", "--adapter", "adapter", *short, "--json", "Tom"],
    "predict": ["predict", "--model", "bert", "--task", "embeddings", "word7"],
    "compare": ["compare", "--methods", "base,lora", *comparison],
    "compare --json": ["compare", "--methods", "base,lora", *comparison, "--json"],
    "sweep": ["sweep", "--values", "1,2", "--seeds", "1", *comparison],
    "plan": ["plan", "model"],
    "inspect": ["inspect", "model"],
    "verify": ["verify", "adapter", "--model", "model"],
    "merge": ["merge", "adapter", "--model", "model", "--output", "out"],
    "quantize": ["quantize", "--model", "model", "--to", "int8", "--output", "out"],
    "combine": ["combine", "adapter", "adapter", "--model", "model", "--output", "out"],
    "convert": ["convert", "adapter", "--output", "out"],
    "neighbors": ["neighbors", "prompt", "--model", "model"],
    "methods": ["methods"],
    "methods --json": ["methods", "--json"],
    "--help": ["--help"],
    "train --help": ["train", "--help"],
}
# Each redirection with whether it loses the result.
redirections = {
    "": False, "<&-": False, "2>&-": False, "<&- 2>&-": False, "2>/dev/full": False, ">&-": True, ">&- 2>&-": True,
    "<&- >&- 2>&-": True, ">/dev/full": True, ">/dev/full 2>/dev/full": True,
}
files = {file: digest(file) for file in [model / "model.safetensors", model / "config.json", faults.folder / "rows.jsonl",
                                         faults.folder / "adapter/adapter_model.safetensors"]}


def run(name: str, command: list, shell: str) -> int:
    """The exit code of the program in a shell command, after removing its output."""
    result = subprocess.run(
        ["bash", "-c", shell, "bash", *faults.command(*command)], cwd=faults.folder, env=faults.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)
    for output in (faults.folder / "out", faults.folder / "out.checkpoint"):
        if output.exists():
            remove(output)
    for file, known in files.items():
        faults.check(digest(file) == known, f"{name}, {shell}: {file.name} was written over")
    return result.returncode


for name, command in commands.items():
    plain = run(name, command, '"$@"')
    if plain != 0:
        faults.skip(f"{name}: fails without redirection too, with exit code {plain}")
        continue
    for redirection, loses in redirections.items():
        code = run(name, command, f'"$@" {redirection}')
        faults.check(code == 1 if loses else code == 0, f"{name} {redirection}: exit code {code}")
    # The reader exits at once; progress written to a closed pipe is lost without an error.
    code = run(name, command, '{ sleep 0.2; "$@"; } | true; exit ${PIPESTATUS[0]}')
    faults.check(code == 141, f"{name} into a closed pipe: exit code {code}")
    code = run(name, command, '{ sleep 0.2; "$@" 2>&3 3>&- >/dev/null; } 3>&1 | true; exit ${PIPESTATUS[0]}')
    faults.check(code == 0, f"{name}, progress into a closed pipe: exit code {code}")
    print(f"{name}: {len(redirections) + 2} redirections", flush=True)
faults.end()
