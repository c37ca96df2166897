import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Training

/// An adapter trained by a comparison, before its evaluation.
package struct TrainedAdapter {
    /// Index of its method in ``ComparisonPlan/methods``.
    package let method: Int
    /// Index of the seed, from 0.
    package let seed: Int
    package let adapter: Adapter
    /// The base model in the method's weight format.
    package let base: ModelFolder
    package let configuration: TrainingConfiguration
    package let result: TrainingResult
}

extension Comparison {
    /// Folder names of the methods' adapters, such as `lora`, with a number for repeated methods.
    package var methodNames: [String] {
        plan.methods.enumerated().map { index, method in
            let earlier = plan.methods[..<index].count { $0.name == method.name }
            return earlier == 0 ? method.name : "\(method.name)-\(earlier + 1)"
        }
    }

    /// Saves a trained adapter or model to a subfolder of `parent`, as `peft train` does.
    ///
    /// An existing folder of that name, from an interrupted run, is replaced.
    package func keep(_ trained: TrainedAdapter, in parent: URL, name: String) throws {
        let name = plan.seeds > 1 ? "\(name)-seed-\(trained.configuration.seed)" : name
        let (adapter, base) = (trained.adapter, trained.base)
        let outline = ModelOutline(adapter.model)
        let summary = PlanSummary(try adapter.choice.plan(for: outline), outline: outline)
        let counts = data.counts
        var record = TrainingRecord(
            model: modelName, method: adapter.choice.method.name,
            methodFields: adapter.choice.configuration.named, prompt: "", target: "",
            maxInputTokens: plan.maxInputTokens, data: data.name, trainingRows: counts.training,
            validationRows: counts.validation, configuration: trained.configuration, trainable: summary.trainable,
            total: summary.total, result: trained.result)
        switch data.content {
        case .texts(let texts):
            (record.prompt, record.target) = (texts.templates.prompt.text, texts.templates.target?.text ?? "")
            (record.pair, record.negative) = (texts.templates.pair?.text, texts.templates.negative?.text)
            record.sourceLanguage = texts.templates.sourceLanguage?.text
            record.targetLanguage = texts.templates.targetLanguage?.text
        case .chats(let chats): record.chat = chats.settings
        }
        record.head = base.head
        record.labels = base.head.flatMap { $0.labels.isEmpty ? nil : $0.labels }
        (record.weights, record.embeddingWeights) = (base.storage?.name, base.embeddingStorage?.name)
        try AtomicFile.writeFolder(parent.appendingPathComponent(name)) { folder in
            if adapter.choice.method.peftType == nil {
                try adapter.model.write(into: folder)
                if let template = record.chat?.template {
                    try AtomicFile.write(template, to: folder.appendingPathComponent(ChatTemplate.fileName))
                }
            } else {
                try adapter.write(into: folder, base: modelName)
                try ModelCard.write(into: folder, name: name, record: record)
            }
            try record.write(into: folder)
        }
    }
}

extension Sweep {
    /// Saves a trained adapter in a folder named after the value of the varied field.
    package func keep(_ trained: TrainedAdapter, in parent: URL) throws {
        let value = question.values[trained.method].map {
            $0.isLetter || $0.isNumber || ".+-".contains($0) ? $0 : "_"
        }
        try comparison.keep(trained, in: parent, name: "\(question.field)-\(String(value))")
    }
}
