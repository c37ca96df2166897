/// The order of options on a help page. Options not listed here come last, so none is ever omitted.
enum HelpSections {
    typealias Section = (title: String, options: [OptionTable.Option])

    static func of(_ table: OptionTable) -> [Section] {
        var left = table.options.filter { !$0.isMethods }
        func take(_ keys: [String]) -> [OptionTable.Option] {
            keys.compactMap { key in
                guard let index = left.firstIndex(where: { $0.kind != .positional && $0.names.contains("--\(key)") })
                else { return table["--\(key)"].flatMap { $0.isMethods ? $0 : nil } }
                return left.remove(at: index)
            }
        }
        let arguments = left.filter { $0.kind == .positional }
        left.removeAll { $0.kind == .positional }
        let common = take(Self.common[table.command] ?? [])
        let last = take(["config", "json", "quiet", "help"])
        var sections: [Section] = [("Arguments", arguments)]
        if common.isEmpty || left.count < 8 {
            sections.append(("Options", common + left + last))
            return sections
        }
        sections.append(("Common options", common))
        for (title, keys) in Self.groups { sections.append((title, take(keys))) }
        sections.append(("Other options", left + last))
        return sections
    }

    /// The common options of each command, including options of methods such as `rank`.
    private static let common: [String: [String]] = [
        "train": [
            "model", "method", "data", "rank", "alpha", "targets", "output", "epochs", "steps", "lr", "batch-size",
            "validation", "prompt", "target",
        ],
        "compare": [
            "model", "methods", "data", "validation", "test", "prompt", "target", "seeds", "epochs", "steps", "lr",
            "batch-size", "html", "output",
        ],
        "sweep": [
            "model", "method", "field", "values", "data", "validation", "test", "prompt", "target", "seeds",
            "epochs", "steps", "lr", "batch-size", "html", "output",
        ],
        "evaluate": ["adapter", "model", "data", "prompt", "target", "predictions", "batch-size", "max-new-tokens"],
        "generate": [
            "adapter", "model", "data", "output", "prompt", "field", "chat", "max-new-tokens", "temperature", "beams",
        ],
        "predict": ["adapter", "model", "data", "output", "prompt", "batch-size"],
        "plan": [
            "model", "method", "methods", "rank", "alpha", "targets", "batch-size", "prompt-tokens", "target-tokens",
            "data", "prompt", "target",
        ],
        "quantize": ["model", "to", "output", "group", "calibration"],
        "merge": ["model", "output", "to", "dtype"],
    ]

    private static let groups: [(String, [String])] = [
        (
            "Data",
            [
                "validation-split", "limit", "limit-validation", "limit-test", "task", "pair", "negative", "pooling",
                "source-language", "target-language", "max-input", "multi-reference", "retain", "adapter-field",
                "format",
            ]
        ),
        (
            "Chats",
            [
                "messages", "chat", "chat-template", "chat-option", "system", "loss", "max-length", "show-batch",
                "show-ids",
            ]
        ),
        (
            "Training",
            [
                "epochs", "steps", "tokens-per-batch", "accumulate", "optimizer", "neftune-alpha", "schedule",
                "warmup",
                "weight-decay", "clip", "label-smoothing", "head-lr", "seed", "from-adapter", "validate-every",
                "patience", "checkpoint-every", "resume", "checkpoint-activations", "offload-activations",
                "page-optimizer",
            ]
        ),
        (
            "Generation",
            [
                "max-new-tokens", "min-new-tokens", "temperature", "top-k", "top-p", "min-p", "beams",
                "length-penalty", "early-stopping", "no-repeat-ngram", "repetition-penalty",
            ]
        ),
        ("Records", ["samples", "log-dir", "no-log"]),
        ("Model", ["device", "precision", "threads", "weights", "embedding-weights", "merge"]),
    ]
}
