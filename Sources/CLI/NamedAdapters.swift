import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers
import Training

/// Several adapters that a command names, `--adapter news=folder --adapter mail=folder`, over one base model.
struct NamedAdapters {
    let model: any LanguageModel
    let folder: ModelFolder
    /// Where the tokenizer is: the adapter's folder where it is the only one and has its own, else the model's.
    let tokenizerFolder: URL
    let tokenizer: Tokenizer
    let set: AdapterSet
    /// What each was trained with, by its name.
    let records: [String: TrainingRecord]
    /// The name under which rows ask for the base model itself.
    static let base = "base"

    /// Whether the options name adapters of their own, or more than one.
    static func areMeant(by options: [String]) -> Bool { options.count > 1 || options.contains { split($0) != nil } }

    /// Pairs that a YAML file lists come as one option, separated by commas.
    private static func pairs(_ option: String) -> [String] {
        let parts = option.split(separator: ",").map(String.init)
        return parts.count > 1 && parts.allSatisfy { split($0) != nil } ? parts : [option]
    }

    /// `name=folder`, where that isn't a folder's name itself.
    private static func split(_ option: String) -> (name: String, path: String)? {
        guard let equals = option.firstIndex(of: "="), equals != option.startIndex,
            !option[..<equals].contains("/"), !FileManager.default.fileExists(atPath: option)
        else { return nil }
        return (String(option[..<equals]), String(option[option.index(after: equals)...]))
    }

    /// - Throws: ``PEFTError`` if two share a name, one doesn't fit, or they belong to different base models.
    init(_ options: ModelOptions, _ adapters: [String]) throws {
        let device = try options.prepare()
        let named = try adapters.flatMap(Self.pairs).map {
            option -> (name: String, url: URL, folder: AdapterFolder) in
            let (name, path) = Self.split(option) ?? (URL(fileURLWithPath: option).lastPathComponent, option)
            guard name != Self.base else {
                throw UsageError(
                    "an adapter is named '\(name)'", remedy: "that stands for the model without adapters")
            }
            let url = try HubFetch.adapter(path)
            return (name, url, try AdapterFolder(url))
        }
        let bases = named.map { AdapterBase($0.folder.configuration, of: $0.url) }
        guard let first = bases.first else { throw PEFTError("no adapter is named", remedy: "give --adapter") }
        if options.model == nil, let other = bases.first(where: { $0.name != first.name }) {
            throw PEFTError(
                "the adapters name different base models, '\(first.name ?? "none")' and '\(other.name ?? "none")'",
                remedy: "name the base of both with --model")
        }
        var records: [String: TrainingRecord] = [:]
        for (name, url, _) in named { records[name] = try TrainingRecord.read(in: url) }
        let plain = try first.folder(
            options, keeping: records.values.lazy.compactMap(\.baseStorage).first,
            embeddings: records.values.lazy.compactMap(\.embeddingStorage).first)
        let heads = named.compactMap { records[$0.name]?.trainedHead ?? $0.folder.head(on: plain) }
        if let first = heads.first, heads.contains(where: { $0 != first }) {
            throw PEFTError(
                "the adapters are for different tasks or tell different classes apart",
                remedy: "use one of them at a time")
        }
        let base = plain.with(heads.first)
        folder = base
        model = try folder.load(device: device)
        // One tokenizer serves all; several of their own would have to be the same.
        let tokenizers = try Set(named.map { try AdapterBase.tokenizerFolder($0.url, base: base) })
        tokenizerFolder = tokenizers.count == 1 ? tokenizers.first ?? base.url : base.url
        if tokenizers.count > 1 {
            Console.note("some adapters have tokenizers of their own; the base model's is used for all")
        }
        tokenizer = try Tokenizer.load(folder: tokenizerFolder)
        set = AdapterSet(on: model)
        for (name, _, folder) in named {
            for note in folder.notes { Console.note("\(name): \(note)") }
            try set.add(folder, name: name)
        }
        self.records = records
    }

    /// The adapter that a row names; `nil` is the base model.
    /// - Throws: ``PEFTError`` for an unknown name.
    func adapter(named name: String) throws -> String? {
        if name == Self.base { return nil }
        guard set.adapters[name] == nil else { return name }
        let known = set.names + [Self.base]
        let hint = nearestName(to: name, in: known).map { "did you mean '\($0)'? " } ?? ""
        throw PEFTError("there is no adapter '\(name)'", remedy: hint + "there are \(known.joined(separator: ", "))")
    }

    /// The adapter that a row of data names in a field.
    func adapter(of row: Row, field: String) throws -> String? {
        guard let value = row[field] else {
            let hint = nearestName(to: field, in: row.fields.keys.sorted()).map { "did you mean '\($0)'?" }
            throw PEFTError(
                "\(row.location) has no field '\(field)' that names its adapter",
                remedy: hint ?? "name the field with --adapter-field")
        }
        guard let name = value.string else {
            throw PEFTError("\(row.location): '\(field)' is not a name", remedy: "write an adapter's name there")
        }
        do { return try adapter(named: name) } catch let error as PEFTError {
            throw PEFTError("\(row.location): \(error.problem)", remedy: error.remedy)
        }
    }
}
