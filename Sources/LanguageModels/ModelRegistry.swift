import Foundation
import Support
import Torch
import TorchNN

/// The families of models, by `model_type`. A new one is a file in `Models/` and a line here.
public enum ModelRegistry {
    static let families: [String: @Sendable (JSON) throws -> any LanguageModel] = [
        "t5": { try T5(T5Configuration($0)) },
        "llama": { try Llama(LlamaConfiguration($0)) }, "mistral": { try Llama(LlamaConfiguration($0)) },
        "qwen2": { try Llama(LlamaConfiguration($0)) }, "qwen3": { try Llama(LlamaConfiguration($0)) },
        "gpt2": { try GPT2(GPT2Configuration($0)) },
        "bert": { try BERT(BERTConfiguration($0)) },
    ]

    /// A model without weights, on the meta device: it can be counted and planned.
    /// - Throws: ``PEFTError`` for a configuration without `model_type` or of a family that isn't supported.
    public static func outline(_ configuration: JSON, file: String) throws -> any LanguageModel {
        guard let family = configuration["model_type"]?.string else {
            throw PEFTError(
                "\(file) has no 'model_type'",
                remedy: "supported are: \(families.keys.sorted().joined(separator: ", "))")
        }
        guard let make = families[family] else {
            throw PEFTError(
                "\(file) asks for the model type '\(family)', which is not supported",
                remedy: "supported are: \(families.keys.sorted().joined(separator: ", "))")
        }
        return try make(configuration)
    }
}

/// Reads one kind of configuration, with errors that name the key.
struct ConfigurationReader {
    let json: JSON

    func integer(_ key: String, default fallback: Int? = nil, in range: ClosedRange<Int> = 1...1_000_000_000) throws
        -> Int
    {
        guard let value = json[key], value != .null else {
            if let fallback { return fallback }
            throw PEFTError("config.json has no '\(key)'", remedy: "it has to be an integer")
        }
        guard let number = value.int, range.contains(number) else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))",
                remedy: "it has to be an integer of at least \(range.lowerBound)")
        }
        return number
    }

    func number(_ key: String, default fallback: Double) throws -> Double {
        guard let value = json[key], value != .null else { return fallback }
        guard let number = value.double else {
            throw PEFTError("config.json: '\(key)' is \(value.text(indent: nil))", remedy: "it has to be a number")
        }
        return number
    }

    func boolean(_ key: String, default fallback: Bool) throws -> Bool {
        guard let value = json[key], value != .null else { return fallback }
        guard let flag = value.bool else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))", remedy: "it has to be true or false")
        }
        return flag
    }

    func string(_ key: String, default fallback: String) throws -> String {
        guard let value = json[key], value != .null else { return fallback }
        guard let text = value.string else {
            throw PEFTError("config.json: '\(key)' is \(value.text(indent: nil))", remedy: "it has to be a string")
        }
        return text
    }

    /// One id or a list of them.
    func tokens(_ key: String, default fallback: [Int]) throws -> [Int] {
        guard let value = json[key], value != .null else { return fallback }
        if let one = value.int { return [one] }
        guard let list = value.array?.compactMap(\.int), list.count == value.array?.count else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))",
                remedy: "it has to be a token id or a list of them")
        }
        return list
    }
}
