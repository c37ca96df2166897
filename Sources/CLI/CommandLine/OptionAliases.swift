import Foundation

/// Option names of other programs: `transformers` TrainingArguments, Hugging Face PEFT configurations, LLaMA-Factory and
/// mlx-lm. They are rejected with a hint at the option's name here.
enum OptionAliases {
    /// - Returns: the corresponding names here; the first one that the command has applies.
    static func option(for name: String) -> (options: [String], note: String?)? {
        let key = normalized(name)
        for (options, note, aliases) in table where aliases.contains(key) { return (options, note) }
        return nil
    }

    /// All names here that an alias leads to.
    static var allOptions: [String] { table.flatMap(\.options) }

    /// The remedy for an option without a counterpart.
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
        (["warmup"], "steps, or a ratio if below 1", ["warmup-steps", "warmup-ratio", "num-warmup-steps"]),
        (["optimizer"], nil, ["optim"]),
        (["neftune-alpha"], nil, ["neftune-noise-alpha", "neftune"]),
        (["label-smoothing"], nil, ["label-smoothing-factor"]),
        (["weight-decay"], nil, ["wd"]),
        (["seed"], nil, ["data-seed", "random-seed"]),
        (["validate-every"], nil, ["eval-steps", "steps-per-eval", "eval-interval"]),
        (["checkpoint-every"], nil, ["save-steps", "save-every", "save-interval"]),
        (["patience"], nil, ["early-stopping-patience"]),
        (["resume"], nil, ["resume-from-checkpoint"]),
        (["checkpoint-activations"], nil, ["gradient-checkpointing", "grad-checkpoint", "activation-checkpointing"]),
        (["log-dir"], nil, ["logging-dir", "tensorboard-dir", "project-dir"]),
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
            ["max-length", "max-input"], "for chats; for prompts use --max-input",
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
        (["rslora"], nil, ["use-rslora", "use-rs-lora"]),
        (["tokens"], nil, ["num-virtual-tokens", "virtual-tokens"]),
        (["method"], nil, ["finetuning-type", "fine-tune-type", "peft-type", "peft-method", "train-type"]),
        (["source-language"], nil, ["source-lang", "src-lang"]),
        (["target-language"], nil, ["target-lang", "tgt-lang", "forced-bos-token"]),
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
        "do-train": "remove it: peft train trains and peft evaluate evaluates",
        "do-eval": "remove it: use --validation, or peft evaluate",
        "do-predict": "remove it: use peft predict or peft generate",
        "train": "remove it: peft train trains",
        "stage": "remove it: peft train runs supervised fine-tuning on targets or chats",
        "save-total-limit": "remove it: only the latest checkpoint is kept, until the run ends",
        "logging-steps": "remove it: progress is shown continuously",
        "steps-per-report": "remove it: progress is shown continuously",
        "report-to": "remove it: TensorBoard's event files and metrics.csv are always written",
        "overwrite-output-dir": "remove the output folder, or use another --output",
        "push-to-hub": "remove it: peft push uploads the output folder",
        "trust-remote-code": "remove it: code in a model's repository is never run",
        "version": "use peft --version",
        "num-layers": "use layer numbers, such as --layers 12-15",
    ]
}
