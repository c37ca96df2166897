import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// An adapter folder in Hugging Face PEFT's layout: `adapter_config.json` with `adapter_model.safetensors`, or else
/// `adapter_model.bin`, which is parsed without running any code.
public struct AdapterFolder {
    /// The folder.
    package let url: URL
    /// Its `adapter_config.json`.
    public let configuration: [String: JSON]
    /// The method with its configuration.
    public let choice: MethodChoice
    /// Notes for the user about settings that have no effect here.
    public let notes: [String]
    let tensors: any TensorFile

    /// Opens the folder and parses its configuration; tensors are read later.
    /// - Throws: ``PEFTError`` if a file is missing or damaged, or the method isn't supported.
    public init(_ url: URL) throws {
        self.url = url
        let file = url.appendingPathComponent(AdapterFiles.configuration)
        guard FileManager.default.fileExists(atPath: file.path) else { throw AdapterFiles.missingConfiguration(url) }
        guard var configuration = try JSON.read(file).object else {
            throw PEFTError("\(file.path) is not a JSON object", remedy: "download the file again")
        }
        try SeparateExperts(url, configuration)?.convert(&configuration)
        // Every method trains a classification head too, so modules_to_save adds nothing by naming it.
        let saved = configuration["modules_to_save"]?.array?.compactMap(\.string) ?? []
        if ["SEQ_CLS", "TOKEN_CLS"].contains(configuration["task_type"]),
            saved.allSatisfy({ ["classifier", "score"].contains($0) })
        {
            configuration["modules_to_save"] = .null
        }
        let routed = ArrowFolder.isRouter(configuration) ? try ArrowFolder.read(url, configuration) : nil
        if let routed { configuration = routed.configuration }
        self.configuration = configuration
        if configuration["peft_type"] == nil, AdapterFiles.isMLX(url) { _ = try AdapterFiles.weights(in: url) }
        let method = try PEFTMethods.method(of: configuration, file: file.path)
        notes = try ConfigurationCheck.notes(on: configuration, of: method)
        choice = try AdapterFolder.choice(method, configuration)
        tensors = try routed?.tensors ?? AdapterNames.unwrapped(AdapterFiles.weights(in: url))
    }

    private static func choice<Method: PEFTMethod>(_ method: Method.Type, _ json: [String: JSON]) throws
        -> MethodChoice
    {
        MethodChoice(method, try Method.Configuration(json: json))
    }

    /// Whether it may contain values that replace the base's, such as a saved output layer or tokens' rows; factors and deltas
    /// don't.
    package var replacesValues: Bool {
        !(configuration["modules_to_save"]?.array ?? []).isEmpty
            || tensors.entries.keys.contains {
                $0.hasSuffix(".weight") && !$0.contains("lora_") || $0.contains("trainable_tokens")
            }
    }

    /// Names and shapes of the stored tensors, sorted by name.
    package var tensorShapes: [(name: String, shape: [Int])] {
        tensors.entries.map { ($0.key, $0.value.shape) }.sorted { $0.name < $1.name }
    }

    /// Whether a tensor is a copy of the base's, which Hugging Face stores next to an adapter over that module.
    /// - Throws: ``PEFTError`` if its values differ from the base's.
    private func isCopyOfBase(_ key: String, _ modules: [String: Module]) throws -> Bool {
        let levels = [".base_layer.", ".original_module."]
        let wrapped = levels.compactMap { key.range(of: $0) }.first
        // A full state dict also contains modules without an adapter.
        guard key.hasPrefix(AdapterKeys.prefix), let level = wrapped ?? key.range(of: ".", options: .backwards),
            let module = modules[String(key[..<level.lowerBound].dropFirst(AdapterKeys.prefix.count))]
        else { return false }
        let name = String(key[level.upperBound...])
        let weight = name == "weight" ? (module as? Linear)?.weight ?? (module as? Embedding)?.weight : nil
        guard weight != nil || module.parameters().contains(where: { $0.path == name }) else { return false }
        let isSame = try withTorchErrors {
            let stored = try tensors.tensor(key)
            guard let own = weight else {
                guard let own = module.parameters().first(where: { $0.path == name })?.parameter.tensor else {
                    return false
                }
                return own.shape == stored.shape
                    && (own.device == .meta || own.to(stored.dtype).isIdentical(to: stored))
            }
            // A meta model has no values to compare, only shapes.
            if own.parameters.first?.parameter.tensor.device == .meta {
                return stored.shape == [own.outputs, own.inputs]
            }
            // A quantized tensor is the same if the file's values quantize to it.
            let kept = own.isQuantized ? try own.replacing(with: stored.to(.float32)) : nil
            return own.dense(as: stored.dtype).isIdentical(to: kept?.dense(as: stored.dtype) ?? stored)
        }
        guard isSame || wrapped == nil else {
            throw PEFTError(
                "\(url.path) contains '\(key)', which differs from this model's tensor",
                remedy: "use the base model that the adapter was trained on")
        }
        return isSame
    }

    /// Whether a tensor duplicates another one, for modules that share it.
    private func isCopy(_ key: String, of original: String, isTransposed: Bool = false) throws -> Bool {
        guard tensors.entries[original] != nil else { return false }
        return try withTorchErrors {
            let tensor = try tensors.tensor(original)
            return try tensors.tensor(key).isIdentical(to: isTransposed ? tensor.T.contiguous() : tensor)
        }
    }

    /// Matches the file's tensors against a plan without changing anything.
    /// - Returns: the file's name of each planned tensor, and the problems in the order in which they were found.
    ///
    /// - Parameter vocabulary: names of tensors that are the base's vocabulary matrices, which are handled
    ///   separately.
    func match(_ plan: [Attachment], model: any LanguageModel, vocabulary: Set<String> = []) throws -> (
        sources: [String: String], problems: [Problem]
    ) {
        var wanted: [String: [Int]] = [:]
        var indices: Set<String> = []
        var copies: [String: (original: String, isTransposed: Bool)] = [:]
        for attachment in plan {
            for tensor in attachment.tensors where tensor.isStored {
                let key = attachment.fileKey(tensor.key)
                wanted[key] = tensor.fileShape
                if tensor.isIndex { indices.insert(key) }
                for copy in tensor.copies { copies[copy] = (key, false) }
                for copy in tensor.transposedCopies { copies[copy] = (key, true) }
                // Fully trained modules, and those tied to them, may also appear under their wrapper's name.
                for name in [key] + tensor.copies where attachment.site == .parameter {
                    guard let dot = name.lastIndex(of: ".") else { continue }
                    copies["\(name[..<dot]).modules_to_save\(name[dot...])"] = (key, false)
                }
            }
        }
        let modules = Dictionary(model.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { $1 })
        var sources: [String: String] = [:]
        var problems: [Problem] = []
        // Names without the `base_model.model.` levels are accepted if all names lack them.
        let isComplete = tensors.entries.keys.contains { wanted[$0] != nil }
        for key in tensors.entries.keys.sorted() {
            if wanted[key] != nil {
                sources[key] = key
            } else if !isComplete,
                let meant = AdapterNames.completed(key, on: model).first(where: {
                    wanted[$0] != nil && sources[$0] == nil
                })
            {
                sources[meant] = key
            } else if vocabulary.contains(key) {
                continue
            } else if let copy = copies[key], try isCopy(key, of: copy.original, isTransposed: copy.isTransposed) {
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
            // On Windows, Hugging Face stores positions as floating point.
            if !entry.dtype.isFloatingPoint, !indices.contains(key) {
                problems.append(.notNumbers(key, type: entry.dtype.rawValue))
            }
            if entry.shape != shape { problems.append(.misshapen(key, stored: entry.shape, needed: shape)) }
        }
        return (sources, problems)
    }

    /// Why a stored tensor doesn't fit a model.
    package enum Problem: Sendable, Equatable {
        case unknown(String, nearest: String?)
        case missing(String)
        case misshapen(String, stored: [Int], needed: [Int])
        case notNumbers(String, type: String)

        /// Description of the problem's kind, for grouping.
        var kind: String {
            switch self {
            case .unknown: "tensors that match no parameter of the model"
            case .missing: "tensors missing from the file"
            case .misshapen: "tensors with the wrong shape"
            case .notNumbers: "tensors whose dtype isn't floating-point"
            }
        }

        /// The tensor, with what is wrong about it.
        var detail: String {
            switch self {
            case .unknown(let key, let nearest): nearest.map { "\(key) (did you mean \($0)?)" } ?? key
            case .missing(let key): key
            case .misshapen(let key, let stored, let needed): "\(key): \(stored), expected \(needed)"
            case .notNumbers(let key, let type): "\(key): \(type)"
            }
        }

        func error(_ folder: String) -> PEFTError {
            switch self {
            case .unknown(let key, let nearest):
                PEFTError(
                    "\(folder) contains the tensor '\(key)', which matches no parameter of this model",
                    remedy: nearest.map { "did you mean '\($0)'?" })
            case .missing(let key):
                PEFTError(
                    "\(folder) lacks the tensor '\(key)'",
                    remedy: "check that adapter_config.json belongs to these weights and to this model")
            case .misshapen(let key, let stored, let needed):
                PEFTError(
                    "tensor '\(key)' has shape \(stored), expected \(needed) for this model",
                    remedy: "use the base model and the rank that the adapter was trained with")
            case .notNumbers(let key, let type):
                PEFTError("tensor '\(key)' has dtype \(type)", remedy: "store adapter tensors as floating point")
            }
        }
    }

    /// Reads a stored tensor.
    /// - Throws: ``PEFTError`` if it contains NaN or infinite values.
    private func finiteTensor(_ name: String) throws -> Tensor {
        let tensor = try tensors.tensor(name)
        let count = tensor.nonFiniteCount
        guard count == 0 else {
            throw PEFTError(
                "\(url.path): \(NonFiniteTensor(path: name, count: count).description)",
                remedy: "the file is damaged or training diverged; download it again or retrain")
        }
        return tensor
    }

    /// Attaches the adapter to a model.
    ///
    /// - Parameters:
    ///   - model: the base model.
    ///   - name: the adapter's name.
    ///   - isTrainable: whether to continue training; by default the adapter is for inference only.
    /// - Throws: ``PEFTError`` if a tensor is unknown, missing, misshapen or not finite; the model is then unchanged.
    public func attach(to model: any LanguageModel, name: String = "default", isTrainable: Bool = false) throws
        -> Adapter
    {
        let stored = try StoredVocabulary(self, on: model)
        if let problem = stored.problem { throw problem }
        let vocabulary = stored.matrices(on: model)
        vocabulary?.put()
        do {
            // Validate everything against the plan before changing the model.
            let outline = ModelOutline(model)
            let (sources, problems) = try match(
                choice.resolved(for: outline).plan(for: outline), model: model, vocabulary: stored.keys)
            if let problem = problems.first { throw problem.error(url.path) }
            let adapter = try Adapter(choice, on: model, name: name, isLoading: true, vocabulary: vocabulary)
            do {
                try withTorchErrors { try adapter.load(sources.mapValues { try finiteTensor($0) }) }
            } catch {
                try adapter.deactivate()
                throw error
            }
            adapter.setTrainable(isTrainable)
            return adapter
        } catch {
            vocabulary?.remove()
            throw error
        }
    }
}

extension Adapter {
    /// The version of Hugging Face PEFT whose format is written. Hugging Face PEFT compares it for OFT alone, whose series
    /// it computes differently since 0.18.
    static let formatVersion = "0.21.2"

    /// Writes the adapter folder atomically.
    ///
    /// - Parameters:
    ///   - folder: the folder to write.
    ///   - base: value of `base_model_name_or_path`.
    ///   - taskType: Hugging Face's task name, such as `SEQ_2_SEQ_LM`; by default derived from the model's task.
    ///   - replacing: whether an existing folder is replaced; otherwise it is an error.
    public func save(to folder: URL, base: String, taskType: String? = nil, replacing: Bool = true) throws {
        try AtomicFile.writeFolder(folder, replacing: replacing) {
            try write(into: $0, base: base, taskType: taskType)
        }
    }

    /// Writes the adapter into an existing folder, for callers that handle atomicity themselves.
    package func write(into folder: URL, base: String, taskType: String? = nil) throws {
        guard let type = choice.method.peftType else {
            throw PEFTError(
                "the method \(choice.method.name) trains the whole model and has no adapter file",
                remedy: "save the model instead")
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
            // Hugging Face can't read a text-initialized prompt without it.
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

extension AdapterFolder {
    /// A note for the user if the file replaces the base's vocabulary matrices; `nil` if it doesn't.
    package func vocabularyNote(on model: any LanguageModel) throws -> String? {
        try StoredVocabulary(self, on: model).note(on: model)
    }

    /// Permanently replaces a model's vocabulary matrices by those in the file, for example before planning.
    package func putVocabulary(on model: any LanguageModel) throws {
        try StoredVocabulary(self, on: model).matrices(on: model)?.put()
    }

    /// The tensors under their names in Hugging Face's format for a model.
    /// - Throws: ``PEFTError`` that names an unknown, missing or misshapen tensor.
    package func canonicalTensors(on model: any LanguageModel) throws -> [String: Tensor] {
        let stored = try StoredVocabulary(self, on: model)
        if let problem = stored.problem { throw problem }
        let vocabulary = stored.matrices(on: model)
        vocabulary?.put()
        defer { vocabulary?.remove() }
        let outline = ModelOutline(model)
        let (sources, problems) = try match(
            choice.resolved(for: outline).plan(for: outline), model: model, vocabulary: stored.keys)
        if let problem = problems.first { throw problem.error(url.path) }
        let meant = Dictionary(sources.map { ($0.value, $0.key) }, uniquingKeysWith: { first, _ in first })
        return try withTorchErrors {
            try tensors.entries.keys.reduce(into: [:]) { $0[meant[$1] ?? $1] = try tensors.tensor($1) }
        }
    }
}
