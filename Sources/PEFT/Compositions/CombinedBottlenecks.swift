import LanguageModels
import PEFTSupport
import Torch

extension BottleneckComposition {
    /// How adapters are combined.
    package enum Kind: String, CaseIterable, Sendable {
        /// One upon the other.
        case stack
        /// By a trainable attention over the adapters' outputs (AdapterFusion).
        case fusion
    }

    /// Combines bottleneck adapters and, in a stack, compositions of them.
    ///
    /// - Parameters:
    ///   - folders: the adapters with different names, the lowest first.
    ///   - fusion: settings of a new fusion.
    ///   - model: their model, to which the composition is attached.
    ///   - seed: seed of a new fusion's values.
    /// - Returns: an active adapter. A trained head is the last adapter's.
    /// - Throws: ``PEFTError`` for other adapters, and ones that can't be combined.
    package static func combining(
        _ folders: [(name: String, folder: AdapterFolder)], _ kind: Kind, fusion: FusionConfiguration = .init(),
        on model: any LanguageModel, seed: UInt64
    ) throws -> Adapter {
        guard folders.count > 1 else {
            throw PEFTError("got \(counted(folders.count, "adapter"))", remedy: "combine at least 2")
        }
        var configuration = Configuration()
        configuration.fusion = fusion
        var tensors: [String: Tensor] = [:]
        var fusions: [FusionConfiguration] = []
        for (name, folder) in folders {
            // Checked against the model.
            let own = try folder.canonicalTensors(on: model)
            let start = configuration.levels.count
            var rename: (String) -> String = { $0 }
            switch folder.choice.configuration {
            case let settings as BottleneckConfiguration:
                configuration.levels.append([Member(name: name, settings: settings)])
                rename = { "\(name).\($0)" }
            case let composition as Configuration where kind == .stack:
                configuration.levels += composition.levels
                if composition.isFused { fusions.append(composition.fusion) }
                rename = { Self.shifted($0, by: start) }
            default:
                throw PEFTError(
                    "\(folder.url.path) is \(folder.choice.label), but a \(kind.rawValue) consists of bottleneck adapters",
                    remedy: "combine adapters of houlsby, pfeiffer or parallel, or LoRAs with another --method")
            }
            let sites = Dictionary(
                ModelOutline(model).outputs.map { (AdapterKeys.prefix + $0.path + ".", $0.path) },
                uniquingKeysWith: { first, _ in first })
            for (key, tensor) in own {
                let site = sites.keys.first { key.hasPrefix($0) }
                tensors[site.map { $0 + rename(String(key.dropFirst($0.count))) } ?? key] = tensor
            }
        }
        if kind == .fusion { configuration.levels = [configuration.levels.flatMap { $0 }] }
        if let own = fusions.first {
            guard fusions.allSatisfy({ $0.json == own.json }) else {
                throw PEFTError("the fusions have different settings", remedy: "stack fusions of the same settings")
            }
            configuration.fusion = own
        }
        try configuration.validate()
        let adapter = try Adapter(MethodChoice(BottleneckComposition.self, configuration), on: model, seed: seed)
        // A new fusion keeps its initial values.
        let initial = adapter.storedTensors()
        try withTorchErrors { try adapter.load(initial.merging(tensors) { $1 }) }
        return adapter
    }

    /// The name of a tensor in a composition whose levels come after others.
    private static func shifted(_ key: String, by levels: Int) -> String {
        let parts = key.split(separator: ".", maxSplits: 2)
        guard parts.count == 3, parts[0] == "fusion", let index = Int(parts[1]) else { return key }
        return "fusion.\(index + levels).\(parts[2])"
    }
}
