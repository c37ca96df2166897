import PEFTSupport

/// A model's task.
public enum ModelTask: String, Codable, Sendable, CaseIterable {
    /// Generates a target sequence from a prompt.
    case sequenceToSequence = "seq2seq"
    /// Continues a prompt.
    case causalLM = "causal-lm"
    /// Assigns one class to a text or a pair of texts.
    case classification
    /// Assigns any number of labels to a text.
    case multiLabel = "multi-label"
    /// Predicts a number for a text.
    case regression
    /// Assigns a class to each word.
    case tokenClassification = "token-classification"
    /// Embeds a text as a vector.
    case embeddings

    /// Whether the model generates text.
    package var generates: Bool { self == .sequenceToSequence || self == .causalLM }
    /// Whether a head scores a whole sequence.
    package var scoresRows: Bool { self == .classification || self == .multiLabel || self == .regression }
    /// Whether outputs are named labels.
    package var hasLabels: Bool { self == .classification || self == .multiLabel || self == .tokenClassification }

    /// Hugging Face PEFT's `task_type`.
    package var taskType: String {
        switch self {
        case .sequenceToSequence: "SEQ_2_SEQ_LM"
        case .causalLM: "CAUSAL_LM"
        case .classification, .multiLabel, .regression: "SEQ_CLS"
        case .tokenClassification: "TOKEN_CLS"
        case .embeddings: "FEATURE_EXTRACTION"
        }
    }

    /// transformers' `problem_type`.
    var problemType: String? {
        switch self {
        case .classification: "single_label_classification"
        case .multiLabel: "multi_label_classification"
        case .regression: "regression"
        default: nil
        }
    }

    /// Suffix of the class name in transformers.
    var classSuffix: String? {
        switch self {
        case .classification, .multiLabel, .regression: "ForSequenceClassification"
        case .tokenClassification: "ForTokenClassification"
        case .embeddings: "Model"
        case .sequenceToSequence, .causalLM: nil
        }
    }
}

/// A model's head: its task, the names of its outputs and how embeddings are pooled.
public struct ModelHead: Codable, Sendable, Equatable {
    /// What the model computes.
    public var task: ModelTask
    /// Names of the outputs in order; empty if the task has none.
    public var labels: [String]
    /// How a sentence embedding is pooled from the hidden states.
    public var pooling: Pooling

    /// - Parameters:
    ///   - task: what the model computes.
    ///   - labels: names of classes, in the order of the outputs.
    ///   - pooling: how an embedding is pooled.
    public init(task: ModelTask, labels: [String] = [], pooling: Pooling = Pooling()) {
        (self.task, self.labels, self.pooling) = (task, labels, pooling)
    }

    /// Number of outputs per sequence or token.
    var outputs: Int { task == .regression ? 1 : labels.count }

    /// Reads the head from a configuration's `architectures`, `problem_type` and `id2label`; `nil` if they name no
    /// task with a head.
    package init?(configuration: JSON) {
        let names = (configuration["architectures"]?.array ?? []).compactMap(\.string)
        if names.contains(where: { $0.hasSuffix("ForTokenClassification") }) {
            self.init(task: .tokenClassification, labels: Self.labels(configuration))
        } else if names.contains(where: { $0.hasSuffix("ForSequenceClassification") }) {
            self.init(sequence: configuration)
        } else {
            return nil
        }
    }

    /// A sequence head of the kind given by `problem_type` or, as in transformers, by the number of labels.
    init(sequence configuration: JSON) {
        let labels = Self.labels(configuration)
        switch configuration["problem_type"]?.string {
        case "multi_label_classification": self.init(task: .multiLabel, labels: labels)
        case "regression": self.init(task: .regression)
        case "single_label_classification": self.init(task: .classification, labels: labels)
        default:
            self.init(
                task: labels.count == 1 ? .regression : .classification, labels: labels.count == 1 ? [] : labels)
        }
    }

    /// The names in `id2label`, or transformers' `LABEL_0` and so on.
    static func labels(_ configuration: JSON) -> [String] {
        if let names = configuration["id2label"]?.object {
            let ordered = (0..<names.count).compactMap { names[String($0)]?.string }
            if ordered.count == names.count { return ordered }
        }
        return (0..<max(1, configuration["num_labels"]?.int ?? 2)).map { "LABEL_\($0)" }
    }

    /// Whether the labels are transformers' default names.
    var hasGenericLabels: Bool { labels.enumerated().allSatisfy { $1 == "LABEL_\($0)" } }
}

extension JSON {
    /// The configuration of the same model with this head, in transformers' format.
    func with(_ head: ModelHead) -> JSON {
        guard case .object(var fields) = self, !head.task.generates else { return self }
        if head.task != .embeddings {
            let labels = head.task == .regression ? ["LABEL_0"] : head.labels
            fields["id2label"] = .object(
                Dictionary(
                    labels.enumerated().map { (String($0), .string($1)) }, uniquingKeysWith: { first, _ in first }))
            fields["label2id"] = .object(
                Dictionary(labels.enumerated().map { ($1, .integer($0)) }, uniquingKeysWith: { first, _ in first }))
            fields["num_labels"] = .integer(labels.count)
        }
        fields["problem_type"] = head.task.problemType.map { .string($0) }
        // The class name is the family's followed by the task.
        let ends = [
            "ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "ForPreTraining", "ForCausalLM",
            "LMHeadModel", "ForQuestionAnswering", "Model",
        ]
        if let name = fields["architectures"]?.array?.first?.string, let suffix = head.task.classSuffix,
            let end = ends.first(where: name.hasSuffix)
        {
            fields["architectures"] = .array([.string(name.dropLast(end.count) + suffix)])
        }
        return .object(fields)
    }
}
