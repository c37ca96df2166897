import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Training

extension Comparison {
    /// Every setting that the results depend on, by name, with its value as text.
    func stateSettings() throws -> [String: String] {
        var settings: [String: String] = [
            "model": "\(modelName) (\(modelDigest))", "seeds": "\(plan.seeds)",
            "max-input": "\(plan.maxInputTokens)", "device": plan.device.description,
            "precision": folder.precision.rawValue,
            "retain": plan.retain?.path ?? "none",
            "quantize-after": plan.quantizeAfter.map(\.name).joined(separator: ","),
            "rows of": "\(data.name) (\(dataDigest))",
        ]
        if plan.eliminates { settings["eliminate"] = "true" }
        for (index, method) in plan.methods.enumerated() {
            var text = method.label
            if let choice = method.choice {
                text = "\(method.name) \(JSON.object(choice.configuration.named).text(indent: nil))"
            }
            settings["method \(index + 1)"] =
                text + (method.weights.map { " over \($0.name)" } ?? "")
                + (method.learningRate.map { " at the learning rate \($0)" } ?? "")
        }
        let training = try JSON.parse(JSONEncoder().encode(plan.training), name: "the training configuration")
        for (name, value) in training.object ?? [:] where name != "learningRate" {
            settings[Self.option(name)] = value.text(indent: nil)
        }
        for child in Mirror(reflecting: plan.generation).children {
            if let name = child.label { settings["generation's \(Self.option(name))"] = "\(child.value)" }
        }
        return settings
    }

    /// `batchSize` → `batch-size`
    private static func option(_ field: String) -> String {
        field == "accumulation"
            ? "accumulate" : field.map { $0.isUppercase ? "-" + $0.lowercased() : String($0) }.joined()
    }

    private var dataDigest: String {
        var digest = Digest()
        for example in rows.training { digest.add(example) }
        for example in rows.validation { digest.add(example) }
        for question in rows.questions {
            digest.add(question.prompt)
            digest.add(question.target)
        }
        return digest.text
    }

    /// Distinguishes models of the same name by their configuration and the size of their files.
    private var modelDigest: String {
        var digest = Digest()
        digest.add(outline.configuration.text(indent: nil))
        digest.add([folder.weightBytes])
        digest.add(folder.storage?.name ?? "")
        digest.add(folder.embeddingStorage?.name ?? "")
        return digest.text
    }
}
