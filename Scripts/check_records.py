"""Reads the records that peft train and peft push leave with the programs they are for: TensorBoard, huggingface_hub and
pandas-like readers. Needs a built peft (PEFT_PROGRAM, or .build/release or .build/debug) and the packages tensorboard and
huggingface_hub; without them it says so and succeeds.

    python3 Scripts/check_records.py
"""

import csv
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

try:
    from huggingface_hub import ModelCard
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    sys.exit(print(f"skipped: {error}"))

own = os.environ.get("PEFT_PROGRAM")
places = [own] if own else [os.path.join(ROOT, ".build", kind, "peft") for kind in ("release", "debug")]
program = next((place for place in places if os.access(place, os.X_OK)), None)
if program is None:
    sys.exit(print("skipped: peft is not built"))


def peft(*arguments, code=0, **variables):
    environment = dict(os.environ, OMP_NUM_THREADS="1", **variables)
    result = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)
    assert result.returncode == code, (arguments, result.returncode, result.stderr)
    return result.stdout


def close(a, b):
    return abs(a - b) <= 1e-6 * max(1, abs(a))


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    shutil.copytree(os.path.join(ROOT, "Tests/TrainingTests/Fixtures/chat/model"), "owner/llama")
    with open("rows.jsonl", "w") as file:
        for i in range(8):
            file.write(json.dumps({"q": f"Tom {i}", "a": f"ran away {i}"}) + "\n")
    train = [
        "train", "--quiet", "--model", "owner/llama", "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}",
        "--batch-size", "2", "--steps", "9", "--validation", "rows.jsonl", "--validate-every", "3", "--output", "out",
        "--samples", "1",
    ]
    # Stopped after step 5 and resumed: TensorBoard must show each step once.
    peft(*train, code=143, PEFT_TEST_STOP="5")
    peft(*train, "--resume")
    assert len(glob.glob("out/runs/events.out.tfevents.*")) == 2

    events = EventAccumulator("out/runs")
    events.Reload()
    tags = events.Tags()["scalars"]
    assert set(tags) == {
        "train/loss", "train/learning_rate", "train/grad_norm", "train/epoch", "train/tokens_per_second",
        "train/memory_bytes", "eval/loss",
    }, tags
    with open("out/training.json") as file:
        history = json.load(file)["history"]
    for tag, points in (("train/loss", history["training"]), ("eval/loss", history["validation"])):
        scalars = events.Scalars(tag)
        assert [s.step for s in scalars] == [p["step"] for p in points], (tag, scalars)
        assert all(close(s.value, p["loss"]) for s, p in zip(scalars, points))
    with open("out/runs/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [row for row in rows if row["loss"]]
    assert [int(row["step"]) for row in steps] == list(range(1, 10))
    for tag, column in (
        ("train/loss", "loss"), ("train/learning_rate", "learning_rate"), ("train/grad_norm", "gradient_norm"),
        ("train/tokens_per_second", "tokens_per_second"), ("train/memory_bytes", "memory_bytes"),
    ):
        assert all(close(float(row[column]), s.value) for row, s in zip(steps, events.Scalars(tag))), tag
    print("event files and metrics.csv agree with training.json, before and after a resumption")

    # The base is a local folder here; a name on the hub is what a card states.
    with open("out/adapter_config.json") as file:
        configuration = json.load(file)
    configuration["base_model_name_or_path"] = "some-team/llama"
    os.makedirs("old")
    shutil.copy("out/adapter_model.safetensors", "old")
    shutil.copy("out/training.json", "old")
    with open("old/adapter_config.json", "w") as file:
        json.dump(configuration, file)
    peft("convert", "old", "--output", "named")
    for name, base in (("out", None), ("named", "some-team/llama")):
        data = ModelCard.load(f"{name}/README.md").data
        assert data.library_name == "peft" and data.base_model == base and data.license is None, data
        assert {"lora", "peft"} <= set(data.tags) and data.pipeline_tag == "text-generation"
        assert (f"base_model:adapter:{base}" in data.tags) == (base is not None)
        result = data.eval_results[0]
        assert result.metric_type == "loss" and close(result.metric_value, history["bestLoss"])
    print("model cards are read by huggingface_hub")

    from peft import PeftConfig

    assert PeftConfig.from_pretrained("out").peft_type == "LORA"

    # The same folder, pushed to the test hub and read by huggingface_hub.
    hub = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "Tests/HubTests/Server/hub_server.py"), folder], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)
    try:
        endpoint = "http://127.0.0.1:%d" % json.loads(hub.stdout.readline())["hub"]
        peft("push", "out", "owner/adapter", HF_ENDPOINT=endpoint, HF_TOKEN="secret")
        from huggingface_hub import hf_hub_download

        path = hf_hub_download("owner/adapter", "adapter_model.safetensors", endpoint=endpoint, cache_dir="cache")
        with open(path, "rb") as a, open("out/adapter_model.safetensors", "rb") as b:
            assert a.read() == b.read()
        print("a pushed adapter is downloaded by huggingface_hub")
    finally:
        hub.stdin.close()
        hub.wait(10)
