import LanguageModels
import PEFT
import Support

/// Options that methods declare: `--rank 8`, `--rslora`, `--targets=q,v`.
///
/// They are extracted before the command line is parsed: the parser needs every option at compile time, but each method
/// declares its options in its own configuration.
enum MethodArguments {
    /// The extracted options as names and values.
    nonisolated(unsafe) private(set) static var parsed: [(name: String, value: String)] = []

    /// Commands that accept method options.
    static let commands: Set = ["train", "compare", "sweep", "inspect", "plan"]

    /// Extracts the method options from a command line and returns the rest.
    static func extract(_ arguments: [GivenArgument]) -> [GivenArgument] {
        arguments.filter { argument in
            guard case .option(let option, _, let value) = argument, option.isMethods else { return true }
            parsed.append((option.key, value ?? "true"))
            return false
        }
    }

    /// A method with the extracted options applied.
    /// - Throws: ``UsageError`` for an option that the method doesn't have.
    static func choice(_ name: String) throws -> MethodChoice {
        try checkingOptions {
            var choice = MethodChoice(try PEFTMethods.named(name))
            for (option, value) in parsed { try choice.set(option, to: value) }
            return choice
        }
    }

    /// Whether a list of methods contains `all`, so that methods that don't fit the model are skipped.
    static func namesAll(_ list: String) -> Bool {
        (try? split(list).contains { $0.name == "all" }) ?? false
    }

    /// A row of a comparison.
    typealias Row = (name: String, choice: MethodChoice?, weights: WeightRounding?)

    /// Methods of a comparison: `base,full,lora(rank=8,targets=q+v)`. Method options outside the parentheses are defaults
    /// for every method that has them. `weights` is the base model's weight format: `qalora(weights=int4-g32)`.
    static func list(_ text: String) throws -> [Row] { try checkingOptions { try rows(text) } }

    private static func rows(_ text: String) throws -> [Row] {
        let specifications = try split(text)
        var used: Set<String> = []
        let expanded = specifications.flatMap { item -> [(name: String, fields: [(String, String)])] in
            guard item.name == "all" else { return [item] }
            // Methods listed explicitly beside `all` are not repeated.
            let named = Set(specifications.map(\.name))
            return (["base"] + PEFTMethods.all.map { $0.name }).filter { !named.contains($0) }.map { ($0, []) }
        }
        let result = try expanded.map { name, fields -> Row in
            let weights = try fields.last { $0.0 == "weights" }.map { try WeightRounding($0.1) }
            let fields = fields.filter { $0.0 != "weights" }
            guard name != "base" else {
                if let (field, _) = fields.first {
                    throw UsageError(
                        "base has no field '\(field)'", remedy: "its only field is weights, as in base(weights=nf4)")
                }
                return ("base", nil, weights)
            }
            let method = try PEFTMethods.named(name)
            var choice = MethodChoice(method)
            let names = Set(MethodChoice.options(of: method).map(\.name))
            for (option, value) in parsed where names.contains(option) {
                used.insert(option)
                try choice.set(option, to: value)
            }
            for (option, value) in fields {
                try choice.set(option, to: value.split(separator: "+").joined(separator: ","))
            }
            return (name, choice, weights)
        }
        if let unused = parsed.first(where: { !used.contains($0.name) }) {
            throw UsageError("no method of --methods \(text) has the option --\(unused.name)", remedy: "remove it")
        }
        return result
    }

    private static func split(_ text: String) throws -> [(name: String, fields: [(String, String)])] {
        var parts = [""]
        var depth = 0
        for character in text {
            if character == "(" { depth += 1 }
            if character == ")" { depth -= 1 }
            guard depth >= 0 else { break }
            if character == ",", depth == 0 { parts.append("") } else { parts[parts.count - 1].append(character) }
        }
        guard depth == 0 else {
            throw UsageError(
                "--methods '\(text)' has unbalanced parentheses",
                remedy: "use a form such as lora(rank=8,targets=q+v)")
        }
        return try parts.map { $0.filter { $0 != " " } }.filter { !$0.isEmpty }.map { part in
            guard let open = part.firstIndex(of: "(") else { return (part.lowercased(), []) }
            let inner = part[part.index(after: open)...].dropLast()
            let fields = try inner.split(separator: ",").map { field -> (String, String) in
                let pair = field.split(separator: "=", maxSplits: 1).map(String.init)
                guard let name = pair.first else { throw UsageError("--methods '\(part)' has an empty field") }
                return (name, pair.count == 2 ? pair[1] : "true")
            }
            return (part[..<open].lowercased(), fields)
        }
    }
}
