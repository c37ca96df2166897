import Foundation
import LanguageModels
import Support
import Torch
import TorchNN

/// An adapter on disk in Hugging Face PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`, or where
/// there is none `adapter_model.bin`, of which nothing is run.
public struct AdapterFolder {
    public let url: URL
    public let configuration: [String: JSON]
    public let choice: MethodChoice
    let tensors: any TensorFile

    /// - Throws: ``PEFTError`` if a file is missing or damaged, or the method isn't supported.
    public init(_ url: URL) throws {
        self.url = url
        let file = url.appendingPathComponent("adapter_config.json")
        guard FileManager.default.fileExists(atPath: file.path) else {
            let isThere = FileManager.default.fileExists(atPath: url.path)
            throw PEFTError(
                isThere ? "\(url.path) has no adapter_config.json" : "there is no folder \(url.path)",
                remedy: "name a folder that peft train or Hugging Face PEFT wrote")
        }
        guard var configuration = try JSON.read(file).object else {
            throw PEFTError("\(file.path) is not a JSON object", remedy: "fetch the file again")
        }
        // Every method trains a classifier too, so that Hugging Face's naming it says nothing more.
        let saved = configuration["modules_to_save"]?.array?.compactMap(\.string) ?? []
        if ["SEQ_CLS", "TOKEN_CLS"].contains(configuration["task_type"]),
            saved.allSatisfy({ ["classifier", "score"].contains($0) })
        {
            configuration["modules_to_save"] = .null
        }
        self.configuration = configuration
        choice = try AdapterFolder.choice(
            PEFTMethods.method(of: configuration, file: file.path), configuration)
        let (safe, pickled) = (
            url.appendingPathComponent("adapter_model.safetensors"), url.appendingPathComponent("adapter_model.bin")
        )
        if FileManager.default.fileExists(atPath: safe.path) {
            tensors = try SafetensorsFile(safe)
        } else if FileManager.default.fileExists(atPath: pickled.path) {
            tensors = try TorchFile(pickled)
        } else {
            throw PEFTError("\(url.path) has no adapter_model.safetensors", remedy: "fetch the weights too")
        }
    }

    private static func choice<Method: PEFTMethod>(_ method: Method.Type, _ json: [String: JSON]) throws
        -> MethodChoice
    {
        MethodChoice(method, try Method.Configuration(json: json))
    }

    /// The stored tensors' names and shapes, sorted by name.
    public var tensorShapes: [(name: String, shape: [Int])] {
        tensors.entries.map { ($0.key, $0.value.shape) }.sorted { $0.name < $1.name }
    }

    /// Whether a tensor is the base's own output layer, which Hugging Face stores beside an adapter over it.
    /// - Throws: ``PEFTError`` if it is another model's.
    private func isCopyOfBase(_ key: String, _ modules: [String: Module]) throws -> Bool {
        let suffix = ".base_layer.weight"
        guard key.hasPrefix(AdapterKeys.prefix), key.hasSuffix(suffix),
            let module = modules[String(key.dropFirst(AdapterKeys.prefix.count).dropLast(suffix.count))],
            module is Linear || module is Embedding
        else { return false }
        let isSame = try withTorchErrors {
            let stored = try tensors.tensor(key)
            guard let own = (module as? Linear)?.weight ?? (module as? Embedding)?.weight else { return false }
            // A model without weights can't be compared; its shape can.
            if own.parameters.first?.parameter.tensor.device == .meta {
                return stored.shape == [own.outputs, own.inputs]
            }
            // What is kept in fewer bits is the same where the file's numbers round to it.
            let kept = own.isQuantized ? try own.replacing(with: stored.to(.float32)) : nil
            return own.dense(as: stored.dtype).isIdentical(to: kept?.dense(as: stored.dtype) ?? stored)
        }
        guard isSame else {
            throw PEFTError(
                "\(url.path) holds '\(key)', which differs from this model's own weight",
                remedy: "attach it to the model it was trained on")
        }
        return true
    }

    /// Whether a file holds the same tensor twice, for modules that share it.
    private func isCopy(_ key: String, of original: String) throws -> Bool {
        guard tensors.entries[original] != nil else { return false }
        return try withTorchErrors { try tensors.tensor(key).isIdentical(to: tensors.tensor(original)) }
    }

    /// What is wrong with the adapter for a model; nothing is changed.
    /// - Returns: for each tensor of the plan its name in this file; problems in the order in which they were found.
    func match(_ plan: [Attachment], model: any LanguageModel) throws -> (
        sources: [String: String], problems: [Problem]
    ) {
        var wanted: [String: [Int]] = [:]
        var copies: [String: String] = [:]
        for attachment in plan {
            for tensor in attachment.tensors where tensor.isStored {
                wanted[attachment.fileKey(tensor.key)] = tensor.fileShape
                for copy in tensor.copies { copies[copy] = attachment.fileKey(tensor.key) }
            }
        }
        let modules = Dictionary(model.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { $1 })
        var sources: [String: String] = [:]
        var problems: [Problem] = []
        for key in tensors.entries.keys.sorted() {
            if wanted[key] != nil {
                sources[key] = key
            } else if let original = copies[key], try isCopy(key, of: original) {
                continue
            } else if try !isCopyOfBase(key, modules) {
                problems.append(.unknown(key, nearest: nearestName(to: key, in: Array(wanted.keys))))
            }
        }
        for (key, shape) in wanted.sorted(by: { $0.key < $1.key }) {
            guard let source = sources[key], let entry = tensors.entries[source] else {
                problems.append(.missing(key))
                continue
            }
            if !entry.dtype.isFloatingPoint { problems.append(.notNumbers(key, type: entry.dtype.rawValue)) }
            if entry.shape != shape { problems.append(.misshapen(key, stored: entry.shape, needed: shape)) }
        }
        return (sources, problems)
    }

    /// What keeps an adapter's file from fitting a model.
    public enum Problem: Sendable, Equatable {
        case unknown(String, nearest: String?)
        case missing(String)
        case misshapen(String, stored: [Int], needed: [Int])
        case notNumbers(String, type: String)

        /// What problems of this kind have in common.
        var kind: String {
            switch self {
            case .unknown: "tensors that the model has no place for"
            case .missing: "tensors that the file lacks"
            case .misshapen: "tensors of another shape than the model needs"
            case .notNumbers: "tensors of a type that holds no floating-point numbers"
            }
        }

        /// The tensor, with what is wrong about it.
        var detail: String {
            switch self {
            case .unknown(let key, let nearest): nearest.map { "\(key) (the nearest is \($0))" } ?? key
            case .missing(let key): key
            case .misshapen(let key, let stored, let needed): "\(key): \(stored) instead of \(needed)"
            case .notNumbers(let key, let type): "\(key): \(type)"
            }
        }

        func error(_ folder: String) -> PEFTError {
            switch self {
            case .unknown(let key, let nearest):
                PEFTError(
                    "\(folder) holds the tensor '\(key)', which this model has no place for",
                    remedy: nearest.map { "the nearest is '\($0)'" })
            case .missing(let key):
                PEFTError(
                    "\(folder) lacks the tensor '\(key)'",
                    remedy: "its adapter_config.json doesn't belong to its weights, or to this model")
            case .misshapen(let key, let stored, let needed):
                PEFTError(
                    "tensor '\(key)' has the shape \(stored), this model needs \(needed)",
                    remedy: "the adapter was trained on another model or with another rank")
            case .notNumbers(let key, let type):
                PEFTError("tensor '\(key)' has the type \(type)", remedy: "an adapter holds floating-point numbers")
            }
        }
    }

    /// A stored tensor.
    /// - Throws: ``PEFTError`` where it holds values that are NaN or infinite.
    private func finiteTensor(_ name: String) throws -> Tensor {
        let tensor = try tensors.tensor(name)
        let count = tensor.nonFiniteCount
        guard count == 0 else {
            throw PEFTError(
                "\(url.path): \(NonFiniteTensor(path: name, count: count).description)",
                remedy: "the adapter is damaged or its training diverged; train it again or fetch another one")
        }
        return tensor
    }

    /// Attaches the adapter to a model.
    ///
    /// - Parameter isTrainable: whether training goes on; what is loaded is otherwise for inference alone.
    /// - Throws: ``PEFTError`` if a tensor is unknown, missing or misshapen, or holds values that are not finite; the model
    ///   is then unchanged.
    public func attach(to model: any LanguageModel, name: String = "default", isTrainable: Bool = false) throws
        -> Adapter
    {
        // Everything is checked against the plan, which changes nothing.
        let outline = ModelOutline(model)
        let (sources, problems) = try match(choice.resolved(for: outline).plan(for: outline), model: model)
        if let problem = problems.first { throw problem.error(url.path) }
        let adapter = try Adapter(choice, on: model, name: name, isLoading: true)
        do {
            try withTorchErrors { try adapter.load(sources.mapValues { try finiteTensor($0) }) }
        } catch {
            try adapter.deactivate()
            throw error
        }
        adapter.setTrainable(isTrainable)
        return adapter
    }
}

extension Adapter {
    /// Version of Hugging Face PEFT whose format is written.
    static let formatVersion = "0.17.0"

    /// Writes the adapter's folder; it appears whole or not at all.
    ///
    /// - Parameters:
    ///   - base: what `base_model_name_or_path` is to say.
    ///   - taskType: Hugging Face's name of the task, such as `SEQ_2_SEQ_LM`; by default what the model is for.
    public func save(to folder: URL, base: String, taskType: String? = nil) throws {
        try AtomicFile.writeFolder(folder) { try write(into: $0, base: base, taskType: taskType) }
    }

    /// The same into a folder that exists, for callers that make it appear at once themselves.
    public func write(into folder: URL, base: String, taskType: String? = nil) throws {
        guard let type = choice.method.peftType else {
            throw PEFTError("the method \(choice.method.name) has no adapter file", remedy: "save the whole model")
        }
        var fields: [String: JSON] = choice.forFile(of: self).configuration.json
        fields["peft_type"] = .string(type)
        fields["task_type"] = .string(taskType ?? model.head.task.taskType)
        fields["auto_mapping"] = .null
        fields["peft_version"] = .string(Self.formatVersion)
        fields["base_model_name_or_path"] = .string(base)
        fields["revision"] = .null
        fields["inference_mode"] = true
        if fields["prompt_tuning_init"] == "TEXT", fields["tokenizer_name_or_path"] == .null {
            // Hugging Face reads no prompt that began as a text without it.
            fields["tokenizer_name_or_path"] = .string(base)
        }
        try AtomicFile.write(
            JSON.object(fields).text() + "\n", to: folder.appendingPathComponent("adapter_config.json"))
        try withTorchErrors {
            try SafetensorsFile.write(
                storedTensors(), metadata: ["format": "pt"],
                to: folder.appendingPathComponent("adapter_model.safetensors"))
        }
    }
}
