import Foundation
import PEFTSupport

/// A part of a command line.
enum GivenArgument: Equatable {
    /// An option with its name as written and its value.
    case option(OptionTable.Option, name: String, value: String?)
    /// Anything else, unchanged.
    case other(String)

    /// The option's first long name; `nil` for other arguments.
    var key: String? { if case .option(let option, _, _) = self { option.key } else { nil } }

    /// The argument as one word of a command line.
    var word: String {
        switch self {
        case .other(let text): text
        case .option(let option, let name, let value):
            "\(name.hasPrefix("--") ? name : "--\(option.key)")\(value.map { "=\($0)" } ?? "")"
        }
    }

    /// The words for the parser. A value that begins with a dash is attached with `=`, so that it isn't read as an option.
    var words: [String] {
        switch self {
        case .other(let text): return [text]
        case .option(let option, _, let value) where option.isMethods:
            return [MethodOptions.Given(name: option.key, value: value ?? "true").word]
        case .option(_, let name, nil): return [name]
        case .option(let option, let name, let value?):
            guard option.kind == .flag || value.hasPrefix("-") else { return [name, value] }
            return ["\(name.hasPrefix("--") ? name : "--\(option.key)")=\(value)"]
        }
    }
}

extension OptionTable {
    /// Splits a command line, without the command's name, into options with their values and the rest.
    /// - Throws: ``UsageError`` for an unknown option, or one without its value.
    func split(_ arguments: [String]) throws -> [GivenArgument] {
        var result: [GivenArgument] = []
        var remaining = arguments[...]
        while let argument = remaining.popFirst() {
            if argument == "--" {
                return result + ([argument] + remaining).map(GivenArgument.other)
            }
            guard argument.hasPrefix("-"), argument.count > 1 else {
                result.append(.other(argument))
                continue
            }
            let equals = argument.hasPrefix("--") ? argument.firstIndex(of: "=") : nil
            let name = String(argument[..<(equals ?? argument.endIndex)])
            guard let option = self[name] else {
                // One dash: a number, or a group of short flags for the parser.
                guard name.hasPrefix("--") else {
                    result.append(.other(argument))
                    continue
                }
                throw unknown(String(name.dropFirst(2)))
            }
            if let equals {
                let value = String(argument[argument.index(after: equals)...])
                result.append(.option(option, name: name, value: value))
            } else if option.kind == .flag {
                result.append(.option(option, name: name, value: nil))
            } else if let value = remaining.first, !looksLikeOption(value) {
                remaining.removeFirst()
                result.append(.option(option, name: name, value: value))
            } else {
                let next = remaining.first.map { "if \($0) is its value, use \(name)=\($0)" }
                throw UsageError("\(name) has no value", remedy: next ?? option.help)
            }
        }
        return result
    }

    /// Whether a word after an option is an option itself, and not a value such as `-1`.
    private func looksLikeOption(_ word: String) -> Bool {
        guard word.hasPrefix("-"), word.count > 1 else { return false }
        if word.hasPrefix("--") { return word.dropFirst(2).first?.isLetter ?? true }
        return self[word] != nil
    }

    /// - Parameter file: the configuration file that holds the options, if not the command line.
    /// - Throws: ``UsageError`` for a repeated option that takes one value.
    func rejectRepeats(_ arguments: [GivenArgument], in file: String? = nil) throws {
        var seen: [String: String] = [:]
        for case .option(let option, let name, let value?) in arguments where !option.isRepeating {
            if let first = seen[option.key] {
                let values = first == value ? "" : ", as '\(first)' and '\(value)'"
                throw UsageError(
                    "\(file.map { "\($0): " } ?? "")\(name) is given twice\(values)", remedy: "use it once")
            }
            seen[option.key] = value
        }
    }

    /// - Throws: ``UsageError`` for a word that belongs to no option, if the command takes none, with the option that it probably is
    ///   the value of.
    func rejectStrays(_ arguments: [GivenArgument]) throws {
        guard !options.contains(where: { $0.kind == .positional }) else { return }
        let given = Set(arguments.compactMap(\.key))
        for case .other(let word) in arguments where !word.hasPrefix("-") && !word.isEmpty {
            let url = URL(fileURLWithPath: word)
            let isData = ["jsonl", "json", "csv", "tsv", "txt", "parquet", "gz"].contains(
                url.pathExtension.lowercased())
            let isAdapter = FileManager.default.fileExists(
                atPath: url.appendingPathComponent("adapter_config.json").path)
            let option = (isData ? ["data"] : isAdapter ? ["adapter", "from-adapter"] : ["model"]).first {
                declares($0) && !given.contains($0)
            }
            throw UsageError(
                "unexpected argument '\(word)'",
                remedy: option.map { "write --\($0) \(word)" } ?? "peft \(command) --help lists the options")
        }
    }

    /// The error for an unknown option, named without its dashes.
    /// - Parameter file: the configuration file that holds it, if one does.
    func unknown(_ name: String, in file: String? = nil) -> UsageError {
        let written = file == nil ? "--\(name)" : "'\(name)'"
        let prefix = file.map { "\($0): " } ?? ""
        func shown(_ option: String) -> String { file == nil ? "--\(option)" : "'\(option)'" }
        let names = longNames
        if let alias = OptionAliases.option(for: name), let known = alias.options.first(where: names.contains) {
            let note = alias.note.map { " (\($0))" } ?? ""
            return UsageError("\(prefix)unknown option \(written)", remedy: "it is \(shown(known)) here\(note)")
        }
        if let note = OptionAliases.absent(name) {
            return UsageError("\(prefix)unknown option \(written)", remedy: note)
        }
        let dashed = name.replacingOccurrences(of: "_", with: "-").lowercased()
        if let near = nearestName(to: dashed, in: names) {
            return UsageError("\(prefix)unknown option \(written)", remedy: "did you mean \(shown(near))?")
        }
        return UsageError("\(prefix)unknown option \(written)", remedy: "peft \(command) --help lists the options")
    }
}
