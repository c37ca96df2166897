import LanguageModels
import Support
import Torch
import TorchNN

/// Several adapters over one base model, switched by name: nothing of the base is copied or touched.
public final class AdapterSet {
    public let model: any LanguageModel
    public private(set) var adapters: [String: Adapter] = [:]
    /// Name of the adapter that is active; `nil` for the base model.
    public private(set) var active: String?

    public init(on model: any LanguageModel) { self.model = model }

    /// Loads an adapter, for inference, without activating it.
    /// - Throws: ``PEFTError`` if it doesn't fit the model, or the name is taken.
    @discardableResult
    public func add(_ folder: AdapterFolder, name: String) throws -> Adapter {
        guard adapters[name] == nil else {
            throw PEFTError("there is an adapter '\(name)' already", remedy: "give each its own name")
        }
        let before = active
        try activate(nil)
        let adapter = try folder.attach(to: model, name: name)
        adapter.setTrainable(false)
        try adapter.deactivate()
        adapters[name] = adapter
        try activate(before)
        return adapter
    }

    /// Switches to an adapter, or with `nil` to the base model.
    /// - Throws: ``PEFTError`` for an unknown name, with the nearest one.
    public func activate(_ name: String?) throws {
        guard name != active else { return }
        let next = try name.map { try named($0) }
        if let active { try adapters[active]?.deactivate() }
        next?.activate()
        active = name
    }

    func named(_ name: String) throws -> Adapter {
        if let adapter = adapters[name] { return adapter }
        let known = adapters.keys.sorted()
        let hint = nearestName(to: name, in: known).map { "did you mean '\($0)'?" }
        throw PEFTError(
            "there is no adapter '\(name)'", remedy: hint ?? "there are \(known.joined(separator: ", "))")
    }
}

/// Batches whose rows use different adapters, of different methods too: what all rows share, the base projections, is
/// computed once (Chen et al. 2023, Punica; Sheng et al. 2023, S-LoRA).
public final class MixedBatch {
    private let set: AdapterSet
    private let names: [String]
    private let routes: [String: Int]

    /// Prepares the adapters of a set, of which none may be active.
    /// - Throws: ``PEFTError`` for adapters that can't share a batch.
    public init(_ set: AdapterSet) throws {
        self.set = set
        names = set.adapters.keys.sorted()
        routes = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
        try set.activate(nil)
        var sites: Set<Attachment.Site> = []
        for name in names {
            guard let adapter = set.adapters[name] else { continue }
            if let own = adapter.trained.first {
                throw PEFTError(
                    "adapter '\(name)' (\(adapter.choice.label)) changes the model's own '\(own.path)', which all rows share",
                    remedy: "switch to it for batches of its own")
            }
            for (path, _, module) in adapter.attached {
                if path == set.model.outputLayer || (module as? any EmbeddingAdapter)?.reachesTiedOutput == true {
                    throw PEFTError(
                        "adapter '\(name)' acts on the output layer, which all rows share",
                        remedy: "switch to it for batches of its own")
                }
                if module is any KeyValueAdapter { sites.insert(.keyValues) }
                if let site = adapter.attached.first(where: { $0.adapter === module })?.site as? InputSite,
                    site.role == .decoder
                {
                    sites.insert(.input)
                }
            }
        }
        guard set.model.architecture != .encoderDecoder || sites.count < 2 else {
            throw PEFTError(
                "prefixes and a decoder's virtual tokens can't share a batch of an encoder-decoder",
                remedy: "use batches of one kind")
        }
        for (route, name) in names.enumerated() {
            for (_, site, module) in set.adapters[name]?.attached ?? [] { site.attach(module, route: route) }
        }
    }

    deinit {
        for adapter in set.adapters.values {
            for (_, site, _) in adapter.attached { for route in names.indices { site.clear(route: route) } }
        }
    }

    /// Runs a forward pass or a generation over rows that use these adapters; `nil` is the base model.
    /// - Throws: ``PEFTError`` for an unknown name, and what `body` throws.
    public func run<Result>(_ rows: [String?], _ body: () throws -> Result) throws -> Result {
        let chosen = try rows.map { name -> Int in
            guard let name else { return -1 }
            _ = try set.named(name)
            return routes[name] ?? -1
        }
        return try RowRouting(routes: chosen).run(body)
    }

    /// Continues each prompt with its own adapter, all in one batch.
    public func generate(_ prompts: [[Int]], adapters: [String?], parameters: GenerateParameters) throws -> [[Int]] {
        guard prompts.count == adapters.count else {
            throw PEFTError("\(prompts.count) prompts have \(adapters.count) adapters", remedy: "name one for each")
        }
        let generator = try Generator(set.model, parameters)
        return try run(adapters) { try generator.generate(prompts) }
    }
}

/// Several prompts, or other adapters, for one task: each answers, and the most frequent answer counts
/// (Lester et al. 2021, section 6). All answer in one batch.
public struct AdapterEnsemble {
    private let batch: MixedBatch
    private let members: [String]

    /// - Throws: ``PEFTError`` for adapters that can't share a batch.
    public init(_ set: AdapterSet) throws {
        batch = try MixedBatch(set)
        members = set.adapters.keys.sorted()
        guard !members.isEmpty else { throw PEFTError("the ensemble has no members", remedy: "add adapters") }
    }

    /// The answer that most members give to each prompt, the first of equally frequent ones, with its votes.
    public func generate(_ prompts: [[Int]], parameters: GenerateParameters) throws -> [(tokens: [Int], votes: Int)] {
        let rows = prompts.flatMap { prompt in members.map { _ in prompt } }
        let names: [String?] = prompts.flatMap { _ in members }
        let answers = try batch.generate(rows, adapters: names, parameters: parameters)
        return prompts.indices.map { index in
            let own = answers[(index * members.count)..<((index + 1) * members.count)]
            var best: (tokens: [Int], votes: Int) = ([], 0)
            for answer in own {
                let votes = own.filter { $0 == answer }.count
                if votes > best.votes { best = (answer, votes) }
            }
            return best
        }
    }
}
