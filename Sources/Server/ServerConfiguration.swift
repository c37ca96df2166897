import Foundation
import PEFTSupport
import Yams

/// `--config FILE`: a YAML or JSON mapping of option names to values. Options on the command line take precedence.
enum ServerConfiguration {
    /// The arguments with those of the file that they name, if any.
    /// - Throws: ``PEFTError`` for a file that can't be read or is no mapping of options.
    static func expanded(_ arguments: [String]) throws -> [String] {
        var own = arguments
        guard let place = own.firstIndex(where: { $0 == "--config" || $0.hasPrefix("--config=") }) else { return own }
        let path: String
        if own[place] == "--config" {
            guard own.indices.contains(place + 1) else {
                throw PEFTError("--config has no value", remedy: "name a YAML or JSON file")
            }
            path = own[place + 1]
            own.removeSubrange(place...(place + 1))
        } else {
            path = String(own[place].dropFirst("--config=".count))
            own.remove(at: place)
        }
        let given = Set(own.map { $0 == "-m" ? "--model" : String($0.prefix { $0 != "=" }) })
        return try options(in: path) { !given.contains("--" + $0) && !given.contains("--no-" + $0) } + own
    }

    private static func options(in path: String, isMissing: (String) -> Bool) throws -> [String] {
        guard let text = try? String(contentsOfFile: NSString(string: path).expandingTildeInPath, encoding: .utf8)
        else {
            throw PEFTError("can't read \(path)", remedy: "check that the file exists and is UTF-8")
        }
        let node: Node?
        do { node = try Yams.compose(yaml: text) } catch {
            throw PEFTError(
                "\(path) is not valid YAML: \(String(describing: error).split(separator: "\n").first ?? "")",
                remedy: "use lines such as 'max-sequences: 64'")
        }
        guard let mapping = node?.mapping else {
            throw PEFTError("\(path) is not a mapping of options", remedy: "use lines such as 'max-sequences: 64'")
        }
        return try mapping.flatMap { key, value -> [String] in
            let name = (key.string ?? "").replacingOccurrences(of: "_", with: "-")
            // These print information and exit.
            guard !name.isEmpty, !["help", "version", "config"].contains(name) else {
                throw PEFTError("\(path): '\(name)' is not a setting", remedy: "remove the line")
            }
            guard isMissing(name) else { return [] }
            func given(_ value: Node) throws -> [String] {
                guard let text = value.string else {
                    throw PEFTError(
                        "\(path): '\(name)' is no value", remedy: "use a text, a number or a list of them")
                }
                return ["--\(name)=\(text)"]
            }
            switch value {
            case .sequence(let list): return try list.flatMap(given)
            case .scalar where name == "prefix-cache":
                let text = value.string ?? ""
                guard let flag = value.bool, ["true", "false"].contains(text.lowercased()) else {
                    throw PEFTError("\(path): '\(name)' is a flag (got '\(text)')", remedy: "use true or false")
                }
                return [flag ? "--\(name)" : "--no-\(name)"]
            default: return try given(value)
            }
        }
    }
}
