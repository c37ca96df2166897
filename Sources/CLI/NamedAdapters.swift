import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Training

/// Several named adapters over one base model: `--adapter news=folder --adapter mail=folder`.
struct NamedAdapters {
    let model: any LanguageModel
    let folder: ModelFolder
    /// The tokenizer's folder: that of a single adapter with its own tokenizer, else the model's.
    let tokenizerFolder: URL
    let tokenizer: Tokenizer
    let set: AdapterSet
    /// The training record of each adapter by name.
    let records: [String: TrainingRecord]
    /// The name for the base model without an adapter.
    static let base = "base"

    /// Whether the options name an adapter or list several.
    static func areMeant(by options: [String]) -> Bool { options.count > 1 || options.contains { split($0) != nil } }

    /// Splits the comma-separated pairs that a YAML list is joined to.
    private static func pairs(_ option: String) -> [String] {
        let parts = option.split(separator: ",").map(String.init)
        return parts.count > 1 && parts.allSatisfy { split($0) != nil } ? parts : [option]
    }

    /// Splits `name=folder`, unless a folder has this whole name.
    private static func split(_ option: String) -> (name: String, path: String)? {
        guard let equals = option.firstIndex(of: "="), equals != option.startIndex,
            !option[..<equals].contains("/"), !FileManager.default.fileExists(atPath: option)
        else { return nil }
        return (String(option[..<equals]), String(option[option.index(after: equals)...]))
    }

    /// - Parameter generates: whether text is generated, so that weights are kept as stored if nothing else specifies their format.
    /// - Throws: ``PEFTError`` if two share a name, one doesn't fit, or they belong to different base models.
    init(_ options: ModelOptions, _ adapters: [String], generates: Bool = false) throws {
        let device = try options.prepare()
        let named = try adapters.flatMap(Self.pairs).map {
            option -> (name: String, url: URL, folder: AdapterFolder) in
            let (name, path) = Self.split(option) ?? (URL(fileURLWithPath: option).lastPathComponent, option)
            guard name != Self.base else {
                throw UsageError(
                    "an adapter is named '\(name)', which stands for the model without adapters",
                    remedy: "use another name")
            }
            let url = try HubFetch.adapter(path)
            return (name, url, try AdapterFolder(url))
        }
        let bases = named.map { AdapterBase($0.folder.configuration, of: $0.url) }
        guard let first = bases.first else { throw PEFTError("no adapter was given", remedy: "add --adapter") }
        if options.model == nil, let other = bases.first(where: { $0.name != first.name }) {
            throw PEFTError(
                "the adapters name different base models, '\(first.name ?? "none")' and '\(other.name ?? "none")'",
                remedy: "add --model with the base of both")
        }
        var records: [String: TrainingRecord] = [:]
        for (name, url, _) in named { records[name] = try TrainingRecord.read(in: url) }
        var plain = try first.folder(
            options, weights: records.values.lazy.compactMap(\.baseStorage).first,
            embeddings: records.values.lazy.compactMap(\.embeddingStorage).first)
        if generates, options.mayKeepStoredWeights {
            plain = plain.keepingStoredWeights(packsOutput: !named.contains { $0.folder.replacesValues })
        }
        let bare = plain
        let heads = named.compactMap { records[$0.name]?.trainedHead ?? $0.folder.head(on: bare) }
        if let first = heads.first, heads.contains(where: { $0 != first }) {
            throw PEFTError(
                "the adapters have different tasks or labels",
                remedy: "use one adapter at a time")
        }
        let base = plain.with(heads.first)
        folder = base
        model = try folder.load(device: device)
        // All adapters share one tokenizer.
        let tokenizers = try Set(named.map { try AdapterBase.tokenizerFolder($0.url, base: base) })
        tokenizerFolder = tokenizers.count == 1 ? tokenizers.first ?? base.url : base.url
        if tokenizers.count > 1 {
            Console.note("some adapters have their own tokenizers; the base model's is used for all")
        }
        tokenizer = try Tokenizer.load(folder: tokenizerFolder)
        set = AdapterSet(on: model)
        for (name, _, folder) in named {
            for note in folder.notes { Console.note("\(name): \(note)") }
            try set.add(folder, name: name)
        }
        self.records = records
    }

    /// The adapter of this name; `nil` is the base model.
    /// - Throws: ``PEFTError`` for an unknown name.
    func adapter(named name: String) throws -> String? {
        if name == Self.base { return nil }
        guard set.adapters[name] == nil else { return name }
        let known = set.names + [Self.base]
        let hint = nearestName(to: name, in: known).map { "did you mean '\($0)'? " } ?? ""
        throw PEFTError("unknown adapter '\(name)'", remedy: hint + "use one of \(known.joined(separator: ", "))")
    }

    /// The adapter that a row names in `field`.
    func adapter(of row: Row, field: String) throws -> String? {
        guard let value = row[field] else {
            let hint = nearestName(to: field, in: row.fields.keys.sorted()).map { "did you mean '\($0)'?" }
            throw PEFTError(
                "\(row.location) has no field '\(field)' with the name of its adapter",
                remedy: hint ?? "set the field with --adapter-field")
        }
        guard let name = value.string else {
            throw PEFTError("\(row.location): '\(field)' is not a string", remedy: "use an adapter's name")
        }
        do { return try adapter(named: name) } catch let error as PEFTError {
            throw PEFTError("\(row.location): \(error.problem)", remedy: error.remedy)
        }
    }
}
