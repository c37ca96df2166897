import Foundation

/// Names that options have in other programs: `transformers`' TrainingArguments, Hugging Face PEFT's configurations,
/// LLaMA-Factory and mlx-lm. They are refused, with the name that the option has here.
enum OptionAliases {
    /// - Returns: the names here, of which the first that a command has is meant.
    static func option(for name: String) -> (options: [String], note: String?)? {
        let key = normalized(name)
        for (options, note, aliases) in table where aliases.contains(key) { return (options, note) }
        return nil
    }

    /// The names here that others lead to.
    static var allOptions: [String] { table.flatMap(\.options) }

    /// What to say of options that have no counterpart.
    static func absent(_ name: String) -> String? { absent[normalized(name)] }

    private static func normalized(_ name: String) -> String {
        name.replacingOccurrences(of: "_", with: "-").lowercased()
    }

    private static let table: [(options: [String], note: String?, aliases: Set<String>)] = [
        (["epochs"], nil, ["num-train-epochs", "num-epochs", "n-epochs", "epoch"]),
        (["steps"], nil, ["max-steps", "iters", "num-steps", "num-training-steps", "max-iters", "total-steps"]),
        (["lr"], nil, ["learning-rate", "lr-rate", "learningrate"]),
        (
            ["batch-size"], nil,
            [
                "per-device-train-batch-size", "per-device-batch-size", "per-device-eval-batch-size",
                "train-batch-size", "micro-batch-size", "eval-batch-size", "bs", "batch",
            ]
        ),
        (
            ["accumulate"], nil,
            [
                "gradient-accumulation-steps", "grad-accumulation-steps", "grad-accum", "grad-accum-steps",
                "accumulation-steps", "gradient-accumulation",
            ]
        ),
        (["clip"], nil, ["max-grad-norm", "grad-clip", "gradient-clipping", "gradient-clip-val", "clip-grad-norm"]),
        (["schedule"], nil, ["lr-scheduler-type", "lr-scheduler", "lr-schedule", "scheduler"]),
        (["warmup"], "steps, or a share of all steps below 1", ["warmup-steps", "warmup-ratio", "num-warmup-steps"]),
        (["optimizer"], nil, ["optim"]),
        (["label-smoothing"], nil, ["label-smoothing-factor"]),
        (["weight-decay"], nil, ["wd"]),
        (["seed"], nil, ["data-seed", "random-seed"]),
        (["validate-every"], nil, ["eval-steps", "steps-per-eval", "eval-interval"]),
        (["checkpoint-every"], nil, ["save-steps", "save-every", "save-interval"]),
        (["patience"], nil, ["early-stopping-patience"]),
        (["resume"], nil, ["resume-from-checkpoint"]),
        (["checkpoint-activations"], nil, ["gradient-checkpointing", "grad-checkpoint", "activation-checkpointing"]),
        (["output"], nil, ["output-dir", "out", "out-dir", "save-path", "export-dir"]),
        (["adapter"], nil, ["adapter-name-or-path", "adapter-path", "adapter-file", "lora-path", "peft-model-id"]),
        (
            ["model"], nil,
            [
                "model-name-or-path", "model-name", "model-id", "base-model", "pretrained-model-name-or-path",
                "model-path",
            ]
        ),
        (
            ["data"], nil,
            ["train-file", "dataset", "dataset-dir", "train-data", "train-path", "data-path", "train-dataset"]
        ),
        (
            ["validation", "data"], nil,
            ["validation-file", "eval-file", "eval-dataset", "valid", "valid-file", "dev"]
        ),
        (["test", "data"], nil, ["test-file", "predict-file"]),
        (["limit"], nil, ["max-train-samples", "max-samples", "num-samples"]),
        (["limit-validation"], nil, ["max-eval-samples"]),
        (["limit-test"], nil, ["max-predict-samples", "test-batches"]),
        (
            ["max-length", "max-input"], "of a chat; of a prompt it is --max-input",
            ["cutoff-len", "max-seq-length", "max-seq-len", "model-max-length", "sequence-len", "block-size"]
        ),
        (["max-input"], nil, ["max-source-length", "max-prompt-length", "max-input-length"]),
        (
            ["max-new-tokens"], nil,
            ["max-tokens", "generation-max-length", "max-gen-len", "max-target-length", "max-output-tokens"]
        ),
        (["rank"], nil, ["lora-r", "lora-rank", "r", "lora-dim", "adapter-rank"]),
        (["alpha"], nil, ["lora-alpha"]),
        (["dropout"], nil, ["lora-dropout"]),
        (["targets"], nil, ["lora-target", "target-modules", "lora-target-modules", "lora-targets", "lora-modules"]),
        (["modules-to-save"], nil, ["additional-target", "modules-to-save-list"]),
        (["layers"], nil, ["layers-to-transform", "lora-layers"]),
        (["bias"], nil, ["lora-bias"]),
        (["rslora"], nil, ["use-rslora", "use-rs-lora"]),
        (["tokens"], nil, ["num-virtual-tokens", "virtual-tokens"]),
        (["method"], nil, ["finetuning-type", "fine-tune-type", "peft-type", "peft-method", "train-type"]),
        (["precision"], "--precision bfloat16", ["bf16", "torch-dtype", "dtype", "pure-bf16"]),
        (["precision"], "--precision float16", ["fp16"]),
        (
            ["weights"], "--weights nf4",
            ["load-in-4bit", "quantization-bit", "bits", "load-in-8bit", "bnb-4bit-quant-type"]
        ),
        (["chat-template"], nil, ["template"]),
        (["retain"], nil, ["general-text"]),
        (["beams"], nil, ["num-beams"]),
        (["no-repeat-ngram"], nil, ["no-repeat-ngram-size"]),
        (["temperature"], nil, ["temp"]),
        (["tokens-per-batch"], nil, ["max-tokens-per-batch"]),
        (["quiet"], nil, ["disable-tqdm", "silent", "no-progress"]),
        (["device"], nil, ["use-cpu", "no-cuda"]),
    ]

    private static let absent: [String: String] = [
        "do-train": "leave it out: peft train trains, and peft evaluate measures",
        "do-eval": "leave it out: name --validation, or use peft evaluate",
        "do-predict": "leave it out: use peft predict or peft generate",
        "train": "leave it out: peft train trains",
        "stage": "leave it out: peft train fine-tunes on targets or chats",
        "save-total-limit": "leave it out: the newest checkpoint is kept until the run ends",
        "logging-steps": "leave it out: progress is shown as it comes",
        "steps-per-report": "leave it out: progress is shown as it comes",
        "report-to": "leave it out: training.json in the output holds the history",
        "overwrite-output-dir": "remove the output folder, or name another one",
        "push-to-hub": "leave it out: upload the output folder with Hugging Face's tools",
        "trust-remote-code": "leave it out: no code of a model's repository is ever run",
        "version": "write peft --version",
        "num-layers": "name the layers by number, such as --layers 12-15",
    ]
}
