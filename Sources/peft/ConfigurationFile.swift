import Foundation
import Support
import Yams

/// `--config FILE`: a YAML mapping of option names to values, put before the options of the command line so that
/// these win.
enum ConfigurationFile {
    static func expand(_ arguments: [String]) throws -> [String] {
        guard let index = arguments.firstIndex(where: { $0 == "--config" || $0.hasPrefix("--config=") }) else {
            return arguments
        }
        var rest = arguments
        let path: String
        if rest[index] == "--config" {
            guard index + 1 < rest.count else {
                throw PEFTError("--config has no value", remedy: "name a YAML file")
            }
            path = rest[index + 1]
            rest.removeSubrange(index...index + 1)
        } else {
            path = String(rest[index].dropFirst("--config=".count))
            rest.remove(at: index)
        }
        let options = try read(path)
        guard let command = rest.first, !command.hasPrefix("-") else {
            throw PEFTError("--config needs a command before it", remedy: "such as: peft train --config \(path)")
        }
        return [command] + options + rest.dropFirst()
    }

    private static func read(_ path: String) throws -> [String] {
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
            throw PEFTError("can't read \(path)", remedy: "check that the file exists and is readable")
        }
        let node: Node?
        do { node = try Yams.compose(yaml: text) } catch {
            throw PEFTError(
                "\(path) is not valid YAML: \(String(describing: error).split(separator: "\n").first ?? "")")
        }
        guard let mapping = node?.mapping else {
            throw PEFTError("\(path) is not a mapping", remedy: "write lines such as 'learning-rate: 1e-3'")
        }
        return try mapping.flatMap { key, value -> [String] in
            guard let name = key.string else { throw PEFTError("\(path): a key is not a name") }
            let option = "--" + name.replacingOccurrences(of: "_", with: "-")
            switch value {
            case .scalar:
                // YAML's bare words: flags are given or not.
                if let flag = value.bool, ["true", "false"].contains(value.string?.lowercased() ?? "") {
                    return flag ? [option] : []
                }
                return [option, value.string ?? ""]
            case .sequence(let list):
                return [option, list.compactMap(\.string).joined(separator: ",")]
            case .mapping(let pairs):
                let text = pairs.map { "\($0.key.string ?? "")=\($0.value.string ?? "")" }
                return [option, text.joined(separator: ",")]
            case .alias:
                throw PEFTError("\(path): aliases are not supported", remedy: "write the value out")
            }
        }
    }
}
