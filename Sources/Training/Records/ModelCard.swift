import Foundation
import LanguageModels
import PEFTSupport

/// The model card of an adapter: `README.md`, whose YAML front matter a hub shows and searches.
///
/// The fields are those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md. A license is not among them, as
/// nobody has stated one.
package struct ModelCard {
    package static let fileName = "README.md"

    private let name: String
    /// The base model's name on the hub; `nil` for a folder on this machine, which a hub rejects.
    private let base: String?
    private let type: String
    private let task: String?
    private let record: TrainingRecord?

    /// - Parameters:
    ///   - name: the title.
    ///   - configuration: the contents of `adapter_config.json`.
    ///   - record: how the adapter was trained, if that is known.
    package init(name: String, configuration: [String: JSON], record: TrainingRecord?) {
        (self.name, self.record) = (name, record)
        base = configuration["base_model_name_or_path"]?.string.flatMap(ModelLocator.hubName)
        type = configuration["peft_type"]?.string ?? ""
        task = configuration["task_type"]?.string
    }

    /// Writes the card of the adapter in `folder`, unless it has one.
    /// - Parameter name: the title, as the folder may have a temporary name.
    package static func write(into folder: URL, name: String, record: TrainingRecord? = nil) throws {
        let file = folder.appendingPathComponent(fileName)
        guard !FileManager.default.fileExists(atPath: file.path) else { return }
        let configuration = try JSON.read(folder.appendingPathComponent("adapter_config.json")).object ?? [:]
        try AtomicFile.write(ModelCard(name: name, configuration: configuration, record: record).text, to: file)
    }

    package var text: String { "---\n\(frontMatter)---\n\n\(body)" }

    // MARK: Front matter

    private var frontMatter: String {
        var lines: [String] = []
        if let base { lines.append("base_model: \(Self.quoted(base))") }
        lines.append("library_name: peft")
        if let pipeline { lines.append("pipeline_tag: \(pipeline)") }
        lines.append("tags:")
        lines += tags.map { "- \(Self.quoted($0))" }
        if let loss = validationLoss {
            lines += [
                "metrics:", "- loss", "model-index:", "- name: \(Self.quoted(name))", "  results:", "  - task:",
                "      type: \(pipeline ?? "text2text-generation")", "    dataset:",
                "      name: \(Self.quoted(datasetName))", "      type: \(Self.quoted(datasetName))", "    metrics:",
                "    - type: loss", "      name: Validation loss", "      value: \(loss)",
            ]
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private var pipeline: String? {
        switch task {
        case "CAUSAL_LM": "text-generation"
        case "SEQ_CLS": "text-classification"
        case "TOKEN_CLS": "token-classification"
        case "FEATURE_EXTRACTION": "feature-extraction"
        default: nil
        }
    }

    /// The tags that Hugging Face PEFT writes, and this library's.
    private var tags: [String] {
        (base.map { ["base_model:adapter:\($0)"] } ?? []) + (type == "LORA" ? ["lora"] : []) + ["peft", "swift-peft"]
    }

    private var validationLoss: Double? { record?.history.bestLoss.flatMap { $0.isFinite ? $0 : nil } }

    private var datasetName: String {
        let names = (record?.data ?? "").components(separatedBy: ", ").map {
            URL(fileURLWithPath: $0).lastPathComponent
        }
        return names.joined(separator: ", ")
    }

    /// A YAML string in double quotes, whose escapes are those of JSON.
    static func quoted(_ text: String) -> String {
        var out = ""
        JSON.quote(text, into: &out)
        return out
    }

    // MARK: Text

    private var body: String {
        let title = name.split(whereSeparator: \.isNewline).joined(separator: " ")
        var text = "# \(title)\n\n"
        let method = record?.method ?? type.lowercased()
        let onBase = base.map { " [\($0)](/\($0))" } ?? " a model that is not on the hub"
        text += "An adapter (\(method)) for\(onBase), in the format of Hugging Face PEFT.\n"
        if let base {
            text += """

                ```python
                from peft import PeftModel
                from transformers import \(autoClass)

                model = PeftModel.from_pretrained(\(autoClass).from_pretrained("\(base)"), "<owner>/<name>")
                ```

                """
        }
        if let record { text += trainingSection(record) }
        return text + "\nWritten by swift-peft \(Version.current).\n"
    }

    private var autoClass: String {
        switch task {
        case "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM"
        case "SEQ_CLS": "AutoModelForSequenceClassification"
        case "TOKEN_CLS": "AutoModelForTokenClassification"
        case "FEATURE_EXTRACTION": "AutoModel"
        default: "AutoModelForCausalLM"
        }
    }

    private func trainingSection(_ record: TrainingRecord) -> String {
        var text = "\n## Training\n\n"
        let settings = record.configuration
        var facts = [
            ("Examples", "\(grouped(record.trainingRows)), \(grouped(record.validationRows)) for validation"),
            ("Trainable parameters", "\(grouped(record.trainable)) of \(grouped(record.total))"),
            ("Optimizer steps", grouped(record.history.training.last?.step ?? 0)),
            ("Batch size", "\(settings.batchSize * settings.accumulation)"),
            ("Optimizer", settings.optimizer.rawValue),
            ("Learning rate", "\(settings.learningRate), \(settings.schedule)"),
            ("Seed", "\(settings.seed)"),
        ]
        if let weights = record.weights { facts.append(("Weight format of the base", weights)) }
        if let loss = validationLoss, let step = record.history.bestStep {
            facts.append(("Validation loss", String(format: "%.4f nats per target token, at step %d", loss, step)))
        }
        text += "| | |\n|---|---|\n" + facts.map { "| \($0.0) | \($0.1) |\n" }.joined()
        for (title, template) in [("Prompt", record.prompt), ("Target", record.target)] where !template.isEmpty {
            text += "\n\(title) template:\n\n\(Self.block(template))"
        }
        return text
    }

    /// A code block whose fence is longer than any in the text.
    private static func block(_ text: String) -> String {
        let longest = text.split(whereSeparator: { $0 != "`" }).map(\.count).max() ?? 0
        let fence = String(repeating: "`", count: max(3, longest + 1))
        return "\(fence)\n\(text)\n\(fence)\n"
    }
}
