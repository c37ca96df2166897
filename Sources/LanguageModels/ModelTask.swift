import Support

/// What a model is trained to do with a row.
public enum ModelTask: String, Codable, Sendable, CaseIterable {
    /// Writes a target for a prompt.
    case sequenceToSequence = "seq2seq"
    /// Goes on with a prompt.
    case causalLM = "causal-lm"
    /// Names one class of a text, or of a pair of texts.
    case classification
    /// Names any number of labels of a text.
    case multiLabel = "multi-label"
    /// Gives a text a number.
    case regression
    /// Names the class of each word.
    case tokenClassification = "token-classification"
    /// Gives a text a vector.
    case embeddings

    /// Whether the model's output is text.
    public var writes: Bool { self == .sequenceToSequence || self == .causalLM }
    /// Whether a row as a whole gets scores from a head.
    public var scoresRows: Bool { self == .classification || self == .multiLabel || self == .regression }
    /// Whether outputs stand for named labels.
    public var hasLabels: Bool { self == .classification || self == .multiLabel || self == .tokenClassification }

    /// Hugging Face PEFT's `task_type`.
    public var taskType: String {
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

    /// The end of the name of transformers' class.
    var classSuffix: String? {
        switch self {
        case .classification, .multiLabel, .regression: "ForSequenceClassification"
        case .tokenClassification: "ForTokenClassification"
        case .embeddings: "Model"
        case .sequenceToSequence, .causalLM: nil
        }
    }
}

/// What a model's last layers are for: the task, the names of its outputs, and how vectors are made.
public struct ModelHead: Codable, Sendable, Equatable {
    public var task: ModelTask
    /// Names of the outputs in their order; empty where the task has none.
    public var labels: [String]
    /// How embeddings are made of hidden states.
    public var pooling: Pooling

    public init(task: ModelTask, labels: [String] = [], pooling: Pooling = Pooling()) {
        (self.task, self.labels, self.pooling) = (task, labels, pooling)
    }

    /// Numbers that come out for a row or a token.
    var outputs: Int { task == .regression ? 1 : labels.count }

    /// What a configuration's `architectures`, `problem_type` and `id2label` say; `nil` where they name no task of a
    /// head.
    public init?(configuration: JSON) {
        let names = (configuration["architectures"]?.array ?? []).compactMap(\.string)
        if names.contains(where: { $0.hasSuffix("ForTokenClassification") }) {
            self.init(task: .tokenClassification, labels: Self.labels(configuration))
        } else if names.contains(where: { $0.hasSuffix("ForSequenceClassification") }) {
            self.init(sequence: configuration)
        } else {
            return nil
        }
    }

    /// A head over whole rows, of the kind that `problem_type` names or, as in transformers, the number of labels.
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

    /// Whether the labels are transformers' own, which say nothing about what they stand for.
    var hasGenericLabels: Bool { labels.enumerated().allSatisfy { $1 == "LABEL_\($0)" } }
}

extension JSON {
    /// The configuration of the same model with this head, as transformers reads it.
    func with(_ head: ModelHead) -> JSON {
        guard case .object(var fields) = self, !head.task.writes else { return self }
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
        // The class's name is the family's with the task after it.
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
