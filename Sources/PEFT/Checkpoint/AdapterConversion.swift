import Foundation
import LanguageModels
import Support
import Torch

/// Adapters in other formats as Hugging Face's present one.
public enum AdapterConversion {
    /// A folder with `adapter_model.bin`, or with settings and names of older versions of Hugging Face PEFT.
    ///
    /// - Returns: the configuration and the tensors as they are to be stored.
    public static func olderFolder(_ folder: URL) throws -> (configuration: [String: JSON], tensors: [String: Tensor])
    {
        let file = folder.appendingPathComponent("adapter_config.json")
        guard FileManager.default.fileExists(atPath: file.path) else {
            throw PEFTError("\(folder.path) has no adapter_config.json", remedy: "name an adapter's folder")
        }
        guard var configuration = try JSON.read(file).object else {
            throw PEFTError("\(file.path) is not a JSON object", remedy: "fetch the file again")
        }
        configuration["peft_type"] = configuration["peft_type"]?.string.map { .string($0.uppercased()) } ?? "LORA"
        if let enabled = configuration["enable_lora"], enabled != .null, enabled != [] {
            throw PEFTError(
                "\(file.path) adapts parts of fused projections ('enable_lora')",
                remedy: "convert the loralib file that it came from, with --enable-lora")
        }
        // Settings that present versions don't know.
        for key in ["enable_lora", "merge_weights", "inference_mode"] { configuration[key] = nil }
        configuration["inference_mode"] = true
        let binary = folder.appendingPathComponent("adapter_model.bin")
        let safe = folder.appendingPathComponent("adapter_model.safetensors")
        var tensors: [String: Tensor]
        if FileManager.default.fileExists(atPath: safe.path) {
            tensors = try SafetensorsFile(safe).tensors()
        } else {
            tensors = try TorchFile(binary).tensors()
        }
        tensors = Dictionary(
            tensors.map { (presentName($0.key), $0.value) }, uniquingKeysWith: { first, _ in first })
        guard !tensors.isEmpty else {
            throw PEFTError("\(folder.path) holds no tensors", remedy: "fetch the folder again")
        }
        return (configuration, tensors)
    }

    /// Names without the adapter's own, as `….lora_A.default.weight` had it.
    private static func presentName(_ name: String) -> String {
        name.replacing(".default.weight", with: ".weight").replacing(
            ".lora_embedding_A.default", with: ".lora_embedding_A"
        )
        .replacing(".lora_embedding_B.default", with: ".lora_embedding_B")
    }

    /// A state dictionary of loralib (Hu et al. 2021): `….lora_A` and `….lora_B`, biases where they were trained, and
    /// for fused projections one pair of blocks for each enabled part.
    ///
    /// - Parameters:
    ///   - alpha: loralib's `lora_alpha`, which its files don't hold.
    ///   - enabled: which equal parts of fused projections were adapted (`enable_lora`).
    /// - Returns: an adapter on `model`, which computes what loralib computes.
    public static func loralib(_ file: URL, on model: any LanguageModel, alpha: Double, enabled: [Bool]?) throws
        -> Adapter
    {
        let isSafe = file.pathExtension == "safetensors"
        let tensors = try isSafe ? SafetensorsFile(file).tensors() : TorchFile(file).tensors()
        let outline = ModelOutline(model)
        var pairs: [String: (a: Tensor, b: Tensor, scale: Double)] = [:]
        for (name, a) in tensors where name.hasSuffix(".lora_A") {
            let owner = String(name.dropLast(".lora_A".count))
            guard let b = tensors[owner + ".lora_B"], a.rank == 2, b.rank == 2 else {
                throw PEFTError(
                    "\(file.path) has '\(name)' without a matching lora_B", remedy: "fetch the file again")
            }
            guard let site = site(owner, outline) else {
                let hint = nearestName(to: owner, in: outline.linears.map(\.path)).map { "the nearest is '\($0)'" }
                throw PEFTError("this \(outline.family) model has no projection '\(owner)'", remedy: hint)
            }
            pairs[site.path] = try pair(a, b, site: site, alpha: alpha, enabled: enabled, name: owner)
        }
        guard let first = pairs.first else {
            throw PEFTError(
                "\(file.path) holds no tensors named lora_A", remedy: "name a state dictionary of loralib")
        }
        let rank = first.value.a.dim(0)
        var configuration = LoRA.Configuration(
            rank: rank, alpha: first.value.scale * Double(rank), targets: pairs.keys.sorted())
        for (path, pair) in pairs where pair.a.dim(0) != rank || pair.scale != first.value.scale {
            let pattern = NSRegularExpression.escapedPattern(for: path)
            configuration.rankPattern[pattern] = Double(pair.a.dim(0))
            configuration.alphaPattern[pattern] = pair.scale * Double(pair.a.dim(0))
        }
        let biases = tensors.filter { $0.key.hasSuffix(".bias") }
        if !biases.isEmpty {
            let owners = Set(biases.keys.compactMap { site(String($0.dropLast(5)), outline)?.path })
            configuration.extras.bias =
                owners.isSubset(of: Set(pairs.keys)) && owners.count == biases.count ? .adapted : .all
        }
        let adapter = try Adapter(MethodChoice(LoRA.self, configuration), on: model, isLoading: true)
        try withTorchErrors {
            for (path, _, module) in adapter.attached {
                guard let update = module as? LoRAAdapter, let pair = pairs[path] else { continue }
                update.a.copy(from: pair.a)
                update.b.copy(from: pair.b)
            }
            for own in adapter.trained {
                let match = biases.first { own.path.hasSuffix(strip($0.key)) }
                if let value = match?.value, value.shape == own.values.shape { own.values.copy(from: value) }
            }
        }
        return adapter
    }

    /// Wrappers put words before the names.
    private static func strip(_ name: String) -> String {
        ["module.", "model."].first { name.hasPrefix($0) }.map { String(name.dropFirst($0.count)) } ?? name
    }

    private static func site(_ name: String, _ outline: ModelOutline) -> ModelOutline.LinearSite? {
        let bare = strip(name)
        return outline.linears.first { $0.path == name } ?? outline.linears.first { $0.path == bare }
            ?? outline.linears.first { $0.path.hasSuffix("." + bare) }
    }

    /// A and B over the whole projection, with the scale α / r of loralib's own rank.
    private static func pair(
        _ a: Tensor, _ b: Tensor, site: ModelOutline.LinearSite, alpha: Double, enabled: [Bool]?, name: String
    ) throws -> (a: Tensor, b: Tensor, scale: Double) {
        let rank = b.dim(1)
        func misshapen() -> PEFTError {
            PEFTError(
                "'\(name)' has matrices of \(a.shape) and \(b.shape), its projection is \(site.outputs) × \(site.inputs)",
                remedy: "name the model it was trained on, and --enable-lora for fused projections")
        }
        guard a.dim(1) == site.inputs else { throw misshapen() }
        if a.dim(0) == rank, b.dim(0) == site.outputs { return (a, b, alpha / Double(rank)) }
        guard let enabled, enabled.contains(true), site.outputs.isMultiple(of: enabled.count) else {
            throw misshapen()
        }
        let part = site.outputs / enabled.count
        let places = enabled.indices.filter { enabled[$0] }
        guard a.dim(0) == rank * places.count, b.dim(0) == part * places.count else { throw misshapen() }
        return try withTorchErrors {
            withoutGradients {
                let whole = Tensor.zeros([site.outputs, a.dim(0)], dtype: b.dtype)
                for (index, place) in places.enumerated() {
                    whole.narrowed(axis: 0, (place * part)..<((place + 1) * part))
                        .narrowed(axis: 1, (index * rank)..<((index + 1) * rank))
                        .copy(from: b.narrowed(axis: 0, (index * part)..<((index + 1) * part)))
                }
                return (a, whole, alpha / Double(rank))
            }
        }
    }
}
