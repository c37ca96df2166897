import PEFTSupport

/// Values that the command line accepts for a field.
public enum ConfigurationFieldKind: Sendable {
    case integer(ClosedRange<Int>)
    case number(ClosedRange<Double>)
    case flag
    /// Any text.
    case text
    /// One of these words.
    case choice([String])
    /// Comma-separated names.
    case names
    /// Comma-separated integers.
    case integers
    /// Comma-separated `pattern=number`.
    case numbersByPattern
}

/// One field of a method's configuration, declared once for the command line, `adapter_config.json` and the
/// documentation.
public struct ConfigurationField<Configuration>: Sendable {
    /// Values that the command line accepts for a field.
    package typealias Kind = ConfigurationFieldKind

    /// Name on the command line, without dashes.
    package let name: String
    /// Name in `adapter_config.json`.
    package let key: String
    package let kind: Kind
    /// What it sets. A default that is not a value, such as the model's hidden size, is named in parentheses.
    package let help: String
    /// Whether the key is an extension to Hugging Face's format, which is left out of a file if its value is null.
    package let isExtension: Bool
    /// Reads the field from a configuration as JSON.
    package let read: @Sendable (Configuration) -> JSON
    /// Sets the field of a configuration from JSON.
    package let write: @Sendable (inout Configuration, JSON) throws -> Void

    /// - Parameters:
    ///   - name: name on the command line, without dashes.
    ///   - key: name in `adapter_config.json`.
    ///   - kind: values that the command line accepts.
    ///   - help: one line for `--help`, with the default in parentheses.
    ///   - isExtension: whether the key is left out of a file if its value is null.
    ///   - read: the field's value as JSON.
    ///   - write: sets the field from JSON; an invalid value is a ``PEFTError``.
    public init(
        _ name: String, key: String, _ kind: ConfigurationFieldKind, help: String, isExtension: Bool = false,
        read: @escaping @Sendable (Configuration) -> JSON,
        write: @escaping @Sendable (inout Configuration, JSON) throws -> Void
    ) {
        (self.name, self.key, self.kind, self.help) = (name, key, kind, help)
        self.isExtension = isExtension
        (self.read, self.write) = (read, write)
    }

    /// The help with the field's value in the default configuration, as the argument parser writes that of other options.
    func help(in defaults: Configuration) -> String {
        guard !help.contains("(default: "), let value = Self.shown(read(defaults)) else { return help }
        return "\(help) (default: \(value))"
    }

    /// A value as on the command line; `nil` for one that means none.
    private static func shown(_ value: JSON) -> String? {
        switch value {
        case .bool(let isOn): isOn ? "true" : nil
        case .string(let text): text.isEmpty ? nil : text
        case .array(let elements): elements.isEmpty ? nil : elements.compactMap(shown).joined(separator: ",")
        case .null, .object: nil
        default: value.text(indent: nil)
        }
    }

    /// The same field of a configuration that contains this one.
    func within<Outer>(_ path: WritableKeyPath<Outer, Configuration> & Sendable) -> ConfigurationField<Outer> {
        let (read, write) = (self.read, self.write)
        return ConfigurationField<Outer>(name, key: key, kind, help: help, isExtension: isExtension) {
            read($0[keyPath: path])
        } write: {
            try write(&$0[keyPath: path], $1)
        }
    }

    /// Converts command-line text to the field's JSON value.
    /// - Throws: ``PEFTError`` naming the option and what it accepts.
    package func parse(_ text: String) throws -> JSON {
        func wrong(_ expected: String) -> PEFTError {
            PEFTError("--\(name) is '\(text)'", remedy: "use \(expected)")
        }
        let parts = text.split(separator: ",").map { $0.trimmingSpaces }
        switch kind {
        case .integer(let range):
            guard let value = Int(text), range.contains(value) else { throw wrong("an integer \(describe(range))") }
            return .integer(value)
        case .number(let range):
            guard let value = Double(text), range.contains(value) else { throw wrong("a number \(describe(range))") }
            return .number(value)
        case .flag:
            switch text.lowercased() {
            case "true", "yes", "1", "": return true
            case "false", "no", "0": return false
            default: throw wrong("true or false")
            }
        case .text:
            return .string(text)
        case .choice(let words):
            guard let word = words.first(where: { $0.lowercased() == text.lowercased() }) else {
                throw wrong("one of \(words.joined(separator: ", "))")
            }
            return .string(word)
        case .names:
            guard !parts.isEmpty else { throw wrong("one or more names, separated by commas") }
            return .array(parts.map { .string($0) })
        case .integers:
            let values = parts.flatMap { part -> [Int?] in
                // 0-3 is short for 0,1,2,3.
                let ends = part.split(separator: "-").map { Int($0) }
                if ends.count == 2, let low = ends[0], let high = ends[1], low <= high, high - low < 100_000 {
                    return Array(low...high)
                }
                return [Int(part)]
            }
            guard !values.isEmpty, !values.contains(nil) else {
                throw wrong("integers or ranges such as 0-3, separated by commas")
            }
            return .array(values.compactMap { $0 }.map { .integer($0) })
        case .numbersByPattern:
            var result: [String: JSON] = [:]
            for part in parts {
                guard let equals = part.lastIndex(of: "="), let value = Double(part[part.index(after: equals)...])
                else {
                    throw wrong("pattern=number pairs, separated by commas")
                }
                result[String(part[..<equals])] = .wholeOr(value)
            }
            return .object(result)
        }
    }

    private func describe<Bound>(_ range: ClosedRange<Bound>) -> String {
        "from \(range.lowerBound) to \(range.upperBound)"
    }
}

extension Substring {
    var trimmingSpaces: String {
        let start = firstIndex { !$0.isWhitespace } ?? endIndex
        let end = lastIndex { !$0.isWhitespace }.map { index(after: $0) } ?? start
        return String(self[start..<end])
    }
}

/// The configuration of a PEFT method.
public protocol MethodConfiguration: Sendable {
    /// The default configuration.
    init()
    /// Values of fields that an `adapter_config.json` omits: Hugging Face's defaults.
    static var fileDefaults: Self { get }
    static var fields: [ConfigurationField<Self>] { get }
    /// Settings in Hugging Face's files that change an adapter's output and aren't implemented, with the values that
    /// have no effect; files with other values are rejected.
    static var neutral: [String: [JSON]] { get }
    /// - Throws: ``PEFTError`` for invalid values or combinations.
    func validate() throws
}

extension MethodConfiguration {
    /// The default configuration.
    public static var fileDefaults: Self { Self() }
    /// None.
    public static var neutral: [String: [JSON]] { [:] }

    /// Sets a field by its command-line name.
    /// - Throws: ``PEFTError`` for an unknown name, with the nearest match, or an invalid value.
    public mutating func set(_ name: String, to text: String) throws {
        guard let field = Self.fields.first(where: { $0.name == name }) else {
            let names = Self.fields.map(\.name)
            let hint = nearestName(to: name, in: names).map { "did you mean --\($0)?" }
            throw PEFTError(
                "unknown option --\(name)",
                remedy: hint
                    ?? (names.isEmpty
                        ? "this method has no options"
                        : "this method's options are \(names.map { "--" + $0 }.joined(separator: ", "))"))
        }
        try field.write(&self, field.parse(text))
    }

    /// All fields by their name in `adapter_config.json`.
    public var json: [String: JSON] {
        let values = Self.fields.map { (field: $0, value: $0.read(self)) }
        let written = values.filter { !($0.field.isExtension && $0.value == .null) }
        return Dictionary(written.map { ($0.field.key, $0.value) }, uniquingKeysWith: { first, _ in first })
    }

    /// All fields by their command-line name, for reports.
    package var named: [String: JSON] {
        Dictionary(Self.fields.map { ($0.name, $0.read(self)) }, uniquingKeysWith: { first, _ in first })
    }

    /// The fields' command-line names by their name in `adapter_config.json`.
    package var optionNames: [String: String] {
        Dictionary(Self.fields.map { ($0.key, $0.name) }, uniquingKeysWith: { first, _ in first })
    }

    /// Parses the fields of an `adapter_config.json`; missing and null fields get ``fileDefaults``.
    public init(json: [String: JSON]) throws {
        self = Self.fileDefaults
        let known = Set(Self.fields.map(\.key))
        for (key, accepted) in Self.neutral.sorted(by: { $0.key < $1.key }) where !known.contains(key) {
            guard let value = json[key], value != .null, !accepted.contains(value) else { continue }
            throw PEFTError(
                "adapter_config.json: '\(key)' is \(value.text(indent: nil)), which is not supported",
                remedy: "retrain the adapter without it")
        }
        for field in Self.fields {
            guard let value = json[field.key], value != .null else { continue }
            do { try field.write(&self, value) } catch let error as PEFTError {
                throw PEFTError("adapter_config.json: '\(field.key)': \(error.problem)", remedy: error.remedy)
            }
        }
        try validate()
    }
}
