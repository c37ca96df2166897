import ArgumentParser
import LanguageModels
import PEFT
import PEFTSupport

/// Options that methods declare: `--rank 8`, `--rslora`, `--targets=q,v`. A command that has this group accepts them.
///
/// The parser needs every option at compile time, but each method declares its options in its own configuration.
/// Therefore ``GivenArgument/words`` passes them to the parser as values of one option, which users don't see.
struct MethodOptions: ParsableArguments {
    /// Name of the option whose values are the method options.
    static let carrier = "method-option"

    /// One method option with its value; a flag's is `true`.
    struct Given: ExpressibleByArgument {
        let name: String
        let value: String

        init(name: String, value: String) { (self.name, self.value) = (name, value) }

        /// Parses `name=value`.
        init?(argument: String) {
            // By scalar, as a combining character at the start of the value belongs to it.
            let scalars = argument.unicodeScalars
            guard let equals = scalars.firstIndex(of: "=") else { return nil }
            (name, value) = (String(scalars[..<equals]), String(scalars[scalars.index(after: equals)...]))
        }

        /// The word for the parser.
        var word: String { "--\(MethodOptions.carrier)=\(name)=\(value)" }
    }

    @Option(name: .customLong(carrier), help: .private) var given: [Given] = []

    /// A method with these options applied.
    /// - Throws: ``UsageError`` for an option that the method doesn't have.
    func choice(_ name: String) throws -> MethodChoice {
        try checkingOptions {
            var choice = MethodChoice(try PEFTMethods.named(name))
            for option in given { try choice.set(option.name, to: option.value) }
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
    func list(_ text: String) throws -> [Row] { try checkingOptions { try rows(text) } }

    private func rows(_ text: String) throws -> [Row] {
        let specifications = try Self.split(text)
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
            for option in given where names.contains(option.name) {
                used.insert(option.name)
                try choice.set(option.name, to: option.value)
            }
            for (option, value) in fields {
                try choice.set(option, to: value.split(separator: "+").joined(separator: ","))
            }
            return (name, choice, weights)
        }
        if let unused = given.first(where: { !used.contains($0.name) }) {
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
