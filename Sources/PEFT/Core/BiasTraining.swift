import PEFTSupport

/// Which of the model's own biases are trained with an adapter, as Hugging Face's `bias`.
public enum BiasTraining: Sendable {
    case none
    /// Biases of the adapted projections, `lora_only` in LoRA's files.
    case adapted
    case all

    /// The biases to train.
    ///
    /// - Parameters:
    ///   - adapted: paths of the adapted projections.
    ///   - allowsNone: whether it is valid that there are no such biases, as in Hugging Face's files.
    /// - Throws: ``PEFTError`` if there are none and `allowsNone` is false.
    func attachments(for model: ModelOutline, adapted: [String], allowsNone: Bool) throws -> [Attachment] {
        guard self != .none else { return [] }
        let adapted = Set(adapted)
        let biases = model.parameters.filter {
            $0.leaf == "bias" && (self == .all || adapted.contains($0.owner))
        }
        guard !biases.isEmpty || allowsNone else {
            throw PEFTError(
                self == .all
                    ? "this \(model.family) model has no biases"
                    : "none of the adapted projections of this \(model.family) model has a bias",
                remedy: "remove --bias")
        }
        return biases.map {
            // Hugging Face calls an adapted projection `base_layer`.
            let key = adapted.contains($0.owner) ? "\(AdapterKeys.prefix)\($0.owner).base_layer.bias" : nil
            return .train($0.path, shape: $0.shape, key: key)
        }
    }
}

extension MethodConfiguration {
    /// The `bias` field; `only` is the value for adapted projections, such as `lora_only`.
    static func biasField(_ bias: WritableKeyPath<Self, BiasTraining> & Sendable, only: String)
        -> ConfigurationField<Self>
    {
        .init(
            "bias", key: "bias", .choice(["none", "all", only]),
            help: "which biases to train: none, all or \(only)"
        ) {
            switch $0[keyPath: bias] {
            case .none: "none"
            case .all: "all"
            case .adapted: .string(only)
            }
        } write: {
            switch try text($1) {
            case "none": $0[keyPath: bias] = .none
            case "all": $0[keyPath: bias] = .all
            case only: $0[keyPath: bias] = .adapted
            default:
                throw PEFTError("\($1.text(indent: nil)) is not a bias setting", remedy: "use none, all or \(only)")
            }
        }
    }
}
