import Support

/// Which of the model's own biases are trained beside an adapter: Hugging Face's `bias`.
public enum BiasTraining: Sendable {
    case none
    /// Those of the projections that have an adapter, `lora_only` in LoRA's files.
    case adapted
    case all

    /// What is trained, given the paths of the projections with an adapter.
    ///
    /// - Parameter allowsNone: whether there may be no such biases, as in Hugging Face's files, which then ask for nothing.
    /// - Throws: ``PEFTError`` if there are none otherwise.
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
            // Beneath an adapter, a projection is called `base_layer` there.
            let key = adapted.contains($0.owner) ? "\(AdapterKeys.prefix)\($0.owner).base_layer.bias" : nil
            return .train($0.path, shape: $0.shape, key: key)
        }
    }
}

extension MethodConfiguration {
    /// The field for biases; `only` is the word for those of the adapted projections, such as `lora_only`.
    static func biasField(_ bias: WritableKeyPath<Self, BiasTraining> & Sendable, only: String)
        -> ConfigurationField<Self>
    {
        .init(
            "bias", key: "bias", .choice(["none", "all", only]),
            help: "which biases to train: none, all or \(only) (none)"
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
