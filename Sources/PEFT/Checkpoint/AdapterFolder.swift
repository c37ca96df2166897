import Foundation
import LanguageModels
import Support
import Torch
import TorchNN

/// An adapter on disk in Hugging Face PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.
public struct AdapterFolder {
    static let prefix = "base_model.model."
    public let url: URL
    public let configuration: [String: JSON]
    public let choice: MethodChoice
    private let tensors: SafetensorsFile

    /// - Throws: ``PEFTError`` if a file is missing or damaged, or the method isn't supported.
    public init(_ url: URL) throws {
        self.url = url
        let file = url.appendingPathComponent("adapter_config.json")
        guard FileManager.default.fileExists(atPath: file.path) else {
            throw PEFTError(
                "\(url.path) has no adapter_config.json",
                remedy: "name a folder that peft train or Hugging Face PEFT wrote")
        }
        guard let configuration = try JSON.read(file).object else {
            throw PEFTError("\(file.path) is not a JSON object", remedy: "fetch the file again")
        }
        guard let type = configuration["peft_type"]?.string else {
            throw PEFTError("\(file.path) has no 'peft_type'", remedy: "it is not an adapter's configuration")
        }
        self.configuration = configuration
        choice = try AdapterFolder.choice(PEFTMethods.huggingFace(type), configuration)
        let weights = url.appendingPathComponent("adapter_model.safetensors")
        guard FileManager.default.fileExists(atPath: weights.path) else {
            let pickle = FileManager.default.fileExists(atPath: url.appendingPathComponent("adapter_model.bin").path)
            throw PEFTError(
                "\(url.path) has no adapter_model.safetensors",
                remedy: pickle
                    ? "save it as safetensors; .bin files can run code and are not read" : "fetch the weights too")
        }
        tensors = try SafetensorsFile(weights)
    }

    private static func choice<Method: PEFTMethod>(_ method: Method.Type, _ json: [String: JSON]) throws
        -> MethodChoice
    {
        try refuseUnsupported(json)
        return MethodChoice(method, try Method.Configuration(json: json))
    }

    /// Settings that change what an adapter computes and that aren't implemented are refused, never ignored.
    private static func refuseUnsupported(_ json: [String: JSON]) throws {
        let neutral: [String: [JSON]] = [
            "use_dora": [false], "bias": ["none"], "lora_bias": [false], "fan_in_fan_out": [false],
            "layer_replication": [], "use_qalora": [false], "trainable_token_indices": [], "target_parameters": [[]],
            "modules_to_save": [[]], "alora_invocation_tokens": [], "arrow_config": [], "megatron_config": [],
            "monteclora_config": [], "velora_config": [], "lora_ga_config": [], "use_bdlora": [], "kasa_config": [],
            // The others (PiSSA, OLoRA, CorDA, LoftQ …) change the base's weights, which the file doesn't hold.
            "init_lora_weights": [true, false, "gaussian", "eva", "orthogonal"],
        ]
        for (key, accepted) in neutral.sorted(by: { $0.key < $1.key }) {
            guard let value = json[key], value != .null, !accepted.contains(value) else { continue }
            throw PEFTError(
                "adapter_config.json: '\(key)' is \(value.text(indent: nil)), which is not supported",
                remedy: "an adapter without it can be read")
        }
    }

    /// The stored tensors' names and shapes, sorted by name.
    public var tensorShapes: [(name: String, shape: [Int])] {
        tensors.entries.map { ($0.key, $0.value.shape) }.sorted { $0.name < $1.name }
    }

    /// Whether a tensor is the base's own output layer, which Hugging Face stores beside an adapter over it.
    /// - Throws: ``PEFTError`` if it is another model's.
    private func isCopyOfBase(_ key: String, _ modules: [String: Module]) throws -> Bool {
        let suffix = ".base_layer.weight"
        guard key.hasPrefix(Self.prefix), key.hasSuffix(suffix),
            let linear = modules[String(key.dropFirst(Self.prefix.count).dropLast(suffix.count))] as? Linear
        else { return false }
        let isSame = try withTorchErrors {
            let stored = try tensors.tensor(key)
            return linear.weight.dense(as: stored.dtype).isIdentical(to: stored)
        }
        guard isSame else {
            throw PEFTError(
                "\(url.path) holds '\(key)', which differs from this model's own weight",
                remedy: "attach it to the model it was trained on")
        }
        return true
    }

    /// Attaches the adapter to a model.
    /// - Throws: ``PEFTError`` if a tensor is unknown, missing or misshapen; the model is then unchanged.
    public func attach(to model: any LanguageModel, name: String = "default") throws -> Adapter {
        // Everything is checked against the plan, which changes nothing.
        let plan = try choice.plan(for: ModelOutline(model))
        var wanted: [String: [Int]] = [:]
        for case .linear(let path, let parameters, _) in plan {
            for (key, shape) in parameters { wanted["\(path).\(key)"] = shape }
        }
        let modules = Dictionary(model.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { $1 })
        var sources: [String: String] = [:]
        for key in tensors.entries.keys.sorted() {
            if try isCopyOfBase(key, modules) { continue }
            guard key.hasPrefix(Self.prefix), case let path = String(key.dropFirst(Self.prefix.count)),
                wanted[path] != nil
            else {
                let hint = nearestName(to: key, in: wanted.keys.map { Self.prefix + $0 }).map {
                    "the nearest is '\($0)'"
                }
                throw PEFTError(
                    "\(url.path) holds the tensor '\(key)', which this model has no place for", remedy: hint)
            }
            sources[path] = key
        }
        for (path, shape) in wanted.sorted(by: { $0.key < $1.key }) {
            guard let source = sources[path], let entry = tensors.entries[source] else {
                throw PEFTError(
                    "\(url.path) lacks the tensor '\(Self.prefix)\(path)'",
                    remedy: "its adapter_config.json doesn't belong to its weights, or to this model")
            }
            guard entry.dtype.isFloatingPoint else {
                throw PEFTError(
                    "tensor '\(source)' has the type \(entry.dtype.rawValue)",
                    remedy: "an adapter holds floating-point numbers")
            }
            guard entry.shape == shape else {
                throw PEFTError(
                    "tensor '\(source)' has the shape \(entry.shape), this model needs \(shape)",
                    remedy: "the adapter was trained on another model or with another rank")
            }
        }
        let adapter = try Adapter(choice, on: model, name: name)
        do {
            try withTorchErrors {
                for (key, parameter) in adapter.added {
                    guard let source = sources[key] else { continue }
                    parameter.tensor.copy(from: try tensors.tensor(source))
                }
            }
        } catch {
            try adapter.deactivate()
            throw error
        }
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
    ///   - taskType: Hugging Face's name of the task, such as `SEQ_2_SEQ_LM`.
    public func save(to folder: URL, base: String, taskType: String = "SEQ_2_SEQ_LM") throws {
        try AtomicFile.writeFolder(folder) { try write(into: $0, base: base, taskType: taskType) }
    }

    /// The same into a folder that exists, for callers that make it appear at once themselves.
    public func write(into folder: URL, base: String, taskType: String = "SEQ_2_SEQ_LM") throws {
        guard let type = choice.method.huggingFaceType else {
            throw PEFTError("the method \(choice.method.name) has no adapter file", remedy: "save the whole model")
        }
        var fields: [String: JSON] = choice.configuration.json
        fields["peft_type"] = .string(type)
        fields["task_type"] = .string(taskType)
        fields["auto_mapping"] = .null
        fields["peft_version"] = .string(Self.formatVersion)
        fields["base_model_name_or_path"] = .string(base)
        fields["revision"] = .null
        fields["inference_mode"] = true
        try AtomicFile.write(
            JSON.object(fields).text() + "\n", to: folder.appendingPathComponent("adapter_config.json"))
        let tensors = added.map { (AdapterFolder.prefix + $0.key, $0.parameter.tensor.detached()) }
        try withTorchErrors {
            try SafetensorsFile.write(
                Dictionary(tensors, uniquingKeysWith: { first, _ in first }), metadata: ["format": "pt"],
                to: folder.appendingPathComponent("adapter_model.safetensors"))
        }
    }
}
