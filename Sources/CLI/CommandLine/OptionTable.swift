import ArgumentParser
import Foundation
import PEFT
import PEFTSupport

/// The options of a command: those declared to the parser, those that methods declare, and `--config`.
///
/// The parser describes a command as JSON. From it, mistakes that the parser reports poorly are found before it runs:
/// repeated options, unknown names, values that begin with a dash, keys of a configuration file.
struct OptionTable {
    struct Option: Equatable {
        enum Kind: Equatable { case option, flag, positional }

        var kind: Kind
        /// Names with their dashes, the preferred one first.
        var names: [String]
        var valueName = "value"
        var help = ""
        var defaultValue: String?
        /// Whether it may be repeated.
        var isRepeating = false
        var isOptional = true
        /// Whether a method declares it, rather than the command.
        var isMethods = false
        /// Whether the parser knows it.
        var isDeclared = false

        /// The first long name without dashes, the option's name in help and configuration files.
        var key: String { String((names.first { $0.hasPrefix("--") } ?? names.first ?? "").drop { $0 == "-" }) }
    }

    let command: String
    let abstract: String
    let discussion: String
    let options: [Option]
    /// Whether the command declares ``MethodOptions``.
    let takesMethodOptions: Bool
    private let byName: [String: Int]

    /// - Throws: ``PEFTError`` if the parser's description can't be read.
    init(_ command: any ParsableCommand.Type) throws {
        let json = try JSON.parse(Data(command._dumpHelp().utf8), name: "the options")
        let arguments = json["command"]?["arguments"]?.array ?? []
        let declared = arguments.compactMap(Self.option)
        takesMethodOptions = arguments.contains { $0["preferredName"]?["name"]?.string == MethodOptions.carrier }
        self.command = json["command"]?["commandName"]?.string ?? ""
        abstract = json["command"]?["abstract"]?.string ?? ""
        discussion = json["command"]?["discussion"]?.string ?? ""
        let methods = takesMethodOptions ? Self.methodOptions() : []
        options =
            declared + methods
            + [
                Option(
                    kind: .option, names: ["--config"], valueName: "file",
                    help: "YAML or JSON file of options; options on the command line take precedence.")
            ] + (declared.contains { $0.names.contains("--quiet") } ? [] : [Self.quiet])
        var byName: [String: Int] = [:]
        for (index, option) in options.enumerated() {
            for name in option.names { byName[name] = index }
        }
        self.byName = byName
    }

    /// The option with this name, including dashes: `--rank` or `-o`.
    subscript(name: String) -> Option? { byName[name].map { options[$0] } }

    /// Whether the parser knows an option, named without its dashes.
    func declares(_ name: String) -> Bool { self["--\(name)"]?.isDeclared == true }

    /// All long names without their dashes, for suggestions.
    var longNames: [String] {
        options.filter { $0.kind != .positional }.flatMap(\.names).filter { $0.hasPrefix("--") }
            .map { String($0.dropFirst(2)) }
    }

    private static func option(_ json: JSON) -> Option? {
        guard json["shouldDisplay"]?.bool != false, let kind = json["kind"]?.string else { return nil }
        func name(_ json: JSON) -> String? {
            guard let name = json["name"]?.string else { return nil }
            return (json["kind"]?.string == "long" ? "--" : "-") + name
        }
        let kinds: [String: Option.Kind] = ["option": .option, "flag": .flag, "positional": .positional]
        guard let known = kinds[kind] else { return nil }
        return Option(
            kind: known, names: (json["names"]?.array ?? []).compactMap(name),
            valueName: json["valueName"]?.string ?? "value", help: json["abstract"]?.string ?? "",
            defaultValue: json["defaultValue"]?.string, isRepeating: json["isRepeating"]?.bool ?? false,
            isOptional: json["isOptional"]?.bool ?? true, isDeclared: true)
    }

    /// Every command has it: it hides the progress of downloads.
    private static let quiet = Option(kind: .flag, names: ["--quiet"], help: "Suppress progress output.")

    /// Options that methods declare, each once although several methods have it.
    private static func methodOptions() -> [Option] {
        var seen: Set<String> = []
        return PEFTMethods.all.flatMap { MethodChoice.options(of: $0) }.filter { seen.insert($0.name).inserted }.map {
            Option(
                kind: $0.isFlag ? .flag : .option, names: ["--\($0.name)"], valueName: "value", help: $0.help,
                isMethods: true)
        }
    }
}
