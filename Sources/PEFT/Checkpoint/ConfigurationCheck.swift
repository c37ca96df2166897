import PEFTSupport

/// Checks the settings of an `adapter_config.json` that the method's fields don't cover. Settings that change the
/// output are rejected and all others are reported, so none is silently ignored.
enum ConfigurationCheck {
    /// Fields that affect initialization or training but not the output of a stored adapter.
    private static let trainingOnly: Set = [
        "init_ia3_weights", "megatron_core", "qalora_group_size", "merge_weights",
        "use_effective_conv2d", "generator_seed",
    ]

    /// - Returns: notes for the user.
    /// - Throws: ``PEFTError`` that names a setting which changes the adapter's output.
    static func notes(on configuration: [String: JSON], of method: any PEFTMethod.Type) throws -> [String] {
        let (known, defaults) = (knownKeys(of: method), HuggingFaceDefaults.fields[method.peftType ?? ""] ?? [:])
        var notes: [String] = []
        for (key, value) in configuration.sorted(by: { $0.key < $1.key })
        where !known.contains(key) && !key.hasPrefix("swift_peft_") && !isEmpty(value) {
            let text = "'\(key)' in adapter_config.json is \(value.text(indent: nil))"
            if let usual = defaults[key], same(usual, value) { continue }
            if trainingOnly.contains(key) {
                notes.append("\(text), which affects training only")
            } else if defaults[key] != nil {
                throw PEFTError(
                    "\(text), which changes the adapter's output and is not supported",
                    remedy: "merge the adapter in Hugging Face PEFT and use the merged model")
            } else if value == true || value.object != nil || value.array != nil {
                throw PEFTError(
                    "\(text), an unknown setting that may change the adapter's output",
                    remedy: "remove it if it doesn't, or merge the adapter in the program that wrote it"
                )
            } else {
                notes.append("\(text), an unknown setting that is ignored")
            }
        }
        if let note = seriesNote(configuration) { notes.append(note) }
        if let note = SeparateExperts.note(on: configuration) { notes.append(note) }
        if let start = configuration["init_lora_weights"]?.string, start.hasPrefix("pissa_niter_") {
            notes.append(
                "the adapter was initialized from a randomized SVD of its base (\(start)), which can't be reproduced; with "
                    + "the exact SVD its output differs from training; save it in Hugging Face PEFT "
                    + "with path_initial_model_for_weight_conversion")
        }
        if method.peftType == LoRA.peftType {
            notes += LoRAVariants.all.compactMap { $0.note(on: configuration) }
        }
        return notes
    }

    /// Hugging Face PEFT 0.18 changed OFT's Cayley–Neumann series, and has written its version since then.
    private static func seriesNote(_ configuration: [String: JSON]) -> String? {
        guard configuration["peft_type"] == "OFT", configuration["use_cayley_neumann"] == true else { return nil }
        let written = configuration["peft_version"]?.string
        let numbers = (written ?? "0").split(separator: ".").prefix(2).map { Int($0) ?? 0 }
        guard numbers.lexicographicallyPrecedes([0, 18]) else { return nil }
        return
            "the adapter was written by Hugging Face PEFT \(written ?? "before 0.18"), whose Cayley–Neumann series differs "
            + "slightly from that of 0.18 and later, which is computed here; retrain it for an exact result"
    }

    private static func knownKeys(of method: any PEFTMethod.Type) -> Set<String> {
        func keys<Method: PEFTMethod>(_ method: Method.Type) -> Set<String> {
            Set(Method.Configuration.fields.map(\.key)).union(Method.Configuration.neutral.keys)
        }
        return keys(method).union(HuggingFaceDefaults.common)
    }

    /// Whether a value is null, false or empty.
    private static func isEmpty(_ value: JSON) -> Bool {
        switch value {
        case .null, false, "", [], [:]: true
        default: false
        }
    }

    private static func same(_ a: JSON, _ b: JSON) -> Bool {
        if let a = a.double, let b = b.double { return a == b }
        return a == b
    }
}
