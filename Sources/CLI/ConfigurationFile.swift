import Foundation
import PEFTSupport
import Yams

/// `--config FILE`: a YAML or JSON mapping of option names to values. Options on the command line take precedence.
enum ConfigurationFile {
    /// The options of a file. Underscores in names are read as dashes.
    /// - Throws: ``PEFTError`` for an unreadable file; ``UsageError`` for an unknown option.
    static func read(_ path: String, _ table: OptionTable) throws -> [GivenArgument] {
        guard let text = try? String(contentsOfFile: NSString(string: path).expandingTildeInPath, encoding: .utf8)
        else {
            throw PEFTError("can't read \(path)", remedy: "check that the file exists and is UTF-8")
        }
        let node: Node?
        do { node = try Yams.compose(yaml: text) } catch {
            throw PEFTError(
                "\(path) is not valid YAML: \(String(describing: error).split(separator: "\n").first ?? "")")
        }
        guard let mapping = node?.mapping else {
            throw PEFTError("\(path) is not a mapping of options", remedy: "use lines such as 'learning-rate: 1e-3'")
        }
        let options = try mapping.flatMap { key, value -> [GivenArgument] in
            guard let key = key.string else {
                throw UsageError("\(path): a key is not a string", remedy: "use option names as keys")
            }
            return try arguments(key, value, table, path)
        }
        try table.rejectRepeats(options, in: path)
        return options
    }

    private static func arguments(_ key: String, _ value: Node, _ table: OptionTable, _ path: String) throws
        -> [GivenArgument]
    {
        let name = "--" + key.replacingOccurrences(of: "_", with: "-")
        // These print information and exit; in a file they would end the run silently.
        guard !["--help", "--version", "--config"].contains(name) else {
            throw UsageError("\(path): '\(key)' is not a setting", remedy: "remove the line")
        }
        guard let option = table[name] else { throw table.unknown(key, in: path) }
        func given(_ text: String) -> GivenArgument { .option(option, name: name, value: text) }
        switch value {
        case .scalar:
            let text = value.string ?? ""
            guard option.kind == .flag else { return [given(text)] }
            guard let flag = value.bool, ["true", "false"].contains(text.lowercased()) else {
                throw UsageError("\(path): '\(key)' is a flag (got '\(text)')", remedy: "use true or false")
            }
            if flag { return [.option(option, name: name, value: nil)] }
            let opposite = name.replacingOccurrences(of: "--", with: "--no-")
            return option.names.contains(opposite) ? [.option(option, name: opposite, value: nil)] : []
        case .sequence(let list):
            let texts = list.compactMap(\.string)
            return option.isRepeating ? texts.map(given) : [given(texts.joined(separator: ","))]
        case .mapping(let pairs):
            let texts = pairs.map { "\($0.key.string ?? "")=\($0.value.string ?? "")" }
            return option.isRepeating ? texts.map(given) : [given(texts.joined(separator: ","))]
        case .alias:
            throw UsageError("\(path): aliases are not supported", remedy: "repeat the value")
        }
    }
}
