import LanguageModels
import PEFTSupport

/// The tensors of a method at one site of a model.
struct MethodExample: Sendable {
    /// The model's family and the number of its own parameters.
    let family: String
    let parameters: Int
    /// The path of the site.
    let path: String
    /// Sizes of the site, if it is a projection.
    let sizes: (inputs: Int, outputs: Int)?
    let tensors: [TensorSpec]

    /// The first site with trained tensors, but a projection with different numbers of inputs and outputs if there is one, as
    /// the shapes then tell the sizes apart.
    init?(_ plan: [Attachment], of outline: ModelOutline) {
        let trained = plan.filter { $0.tensors.contains(where: { $0.isTrained }) }
        let sites = Dictionary(
            outline.linears.map { ($0.path, (inputs: $0.inputs, outputs: $0.outputs)) },
            uniquingKeysWith: { first, _ in first })
        let uneven = trained.first { attachment in
            sites[attachment.path].map { $0.inputs != $0.outputs } ?? false
        }
        guard let chosen = uneven ?? trained.first else { return nil }
        (family, parameters) = (outline.modelFamily.name, outline.parameterCount)
        (path, tensors) = (chosen.path, chosen.tensors)
        sizes = chosen.site == .linear ? sites[chosen.path] : nil
    }
}

/// What the program knows about a method: the tables of its page in `docs/methods`, which a test compares with them.
package struct MethodFacts {
    /// An option of a method.
    struct Option {
        let name: String
        /// The key in `adapter_config.json`.
        let key: String
        let kind: ConfigurationFieldKind
        let help: String
        /// The value in the default configuration.
        let value: JSON
    }

    private let method: any PEFTMethod.Type
    private let traits: MethodTraits
    let options: [Option]

    package init(_ method: any PEFTMethod.Type) { self.init(MethodTraits.all([method])[0]) }

    init(_ traits: MethodTraits) {
        (method, self.traits) = (traits.method, traits)
        func options<Configuration: MethodConfiguration>(of configuration: Configuration) -> [Option] {
            Configuration.fields.map {
                Option(
                    name: $0.name, key: $0.key, kind: $0.kind, help: $0.help(in: configuration),
                    value: $0.read(configuration))
            }
        }
        self.options = options(of: MethodChoice(method).configuration)
    }

    /// The facts, the options and the tensors of one site, as Markdown.
    package var markdown: String {
        ([facts] + [optionTable, tensorTable].filter { !$0.isEmpty }).joined(separator: "\n\n")
    }

    private var facts: String {
        func mark(_ holds: Bool) -> String { holds ? "yes" : "no" }
        var rows = [
            ("family", traits.family.rawValue), ("`peft_type`", method.peftType.map { "`\($0)`" } ?? "none"),
            ("file", traits.file), ("merges into the weights", mark(traits.isMergeable)),
            ("quantized base", mark(traits.isForQuantized)), ("mixed batch", mark(traits.isForMixedBatches)),
            ("served", mark(traits.isServed)),
            ("output right after attaching", method.start == .unchanged ? "the base model's" : "changed"),
            ("default learning rate", "\(method.defaultLearningRate)"),
        ]
        if let storage = method.baseStorage { rows.append(("default `--weights`", "`\(storage.name)`")) }
        if let example = traits.example {
            let base = "a \(example.family) of \(Self.grouped(example.parameters))"
            rows.append(("trained by default", "\(Self.grouped(traits.parameters)) parameters over \(base)"))
        }
        return Self.table(["`--method \(method.name)`", method.summary], rows.map { [$0.0, $0.1] })
    }

    private var optionTable: String {
        guard !options.isEmpty else { return "" }
        return Self.table(
            ["option", "key in the file", "value", ""],
            options.map { ["`--\($0.name)`", "`\($0.key)`", Self.values($0.kind), $0.help] })
    }

    private var tensorTable: String {
        guard let example = traits.example else { return "" }
        let place =
            example.sizes.map { "\(example.path) (\($0.inputs) inputs, \($0.outputs) outputs)" }
            ?? example.path
        return Self.table(
            ["tensors at \(place)", "shape", "trained", "in the file"],
            example.tensors.map {
                [
                    "`\($0.key)`", $0.shape.map { "\($0)" }.joined(separator: " × "), $0.isTrained ? "yes" : "no",
                    $0.isStored ? "yes" : "no",
                ]
            })
    }

    /// The facts for programs.
    package var json: JSON {
        var json: [String: JSON] = [
            "name": .string(method.name), "summary": .string(method.summary),
            "family": .string(traits.family.rawValue), "peftType": method.peftType.map { .string($0) } ?? .null,
            "huggingFaceReads": .bool(method.isReadableByHuggingFace), "mergeable": .bool(traits.isMergeable),
            "quantizedBase": .bool(traits.isForQuantized), "mixedBatch": .bool(traits.isForMixedBatches),
            "served": .bool(traits.isServed),
            "learningRate": .number(method.defaultLearningRate), "parameters": .integer(traits.parameters),
            "options": .array(
                options.map { option -> JSON in
                    var isFlag = false
                    if case .flag = option.kind { isFlag = true }
                    return [
                        "name": .string(option.name), "key": .string(option.key), "help": .string(option.help),
                        "flag": .bool(isFlag), "default": option.value,
                    ]
                }),
        ]
        if let example = traits.example {
            var place: [String: JSON] = ["path": .string(example.path)]
            if let (inputs, outputs) = example.sizes {
                (place["inputs"], place["outputs"]) = (.integer(inputs), .integer(outputs))
            }
            place["tensors"] = .array(
                example.tensors.map {
                    [
                        "name": .string($0.key), "shape": .array($0.shape.map { .integer($0) }),
                        "trained": .bool($0.isTrained), "stored": .bool($0.isStored),
                    ]
                })
            json["example"] = .object(place)
        }
        return .object(json)
    }

    private static func values(_ kind: ConfigurationFieldKind) -> String {
        switch kind {
        case .integer(let range): "integer ≥ \(range.lowerBound)"
        case .number(let range) where range.upperBound <= 1: "\(range.lowerBound) to \(range.upperBound)"
        case .number: "number"
        case .flag: "flag"
        case .text: "text"
        case .choice(let words): words.map { "`\($0)`" }.joined(separator: ", ")
        case .names: "names"
        case .integers: "integers"
        case .numbersByPattern: "`pattern=number,…`"
        }
    }

    private static func table(_ header: [String], _ rows: [[String]]) -> String {
        func line(_ cells: [String]) -> String {
            "| " + cells.map { $0.replacing("|", with: "\\|") }.joined(separator: " | ") + " |"
        }
        let rule = "|" + String(repeating: "---|", count: header.count)
        return ([line(header), rule] + rows.map(line)).joined(separator: "\n").replacing("|  |", with: "| |")
    }

    /// A number with commas between thousands.
    private static func grouped(_ number: Int) -> String {
        var digits = String(number)
        var groups: [Substring] = []
        while digits.count > 3 {
            groups.insert(Substring(digits.suffix(3)), at: 0)
            digits.removeLast(3)
        }
        return ([digits] + groups.map { String($0) }).joined(separator: ",")
    }
}
