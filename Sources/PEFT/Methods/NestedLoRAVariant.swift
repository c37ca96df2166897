import Foundation
import LanguageModels
import PEFTSupport

/// A variant whose settings are an object in Hugging Face's files: `velora_config`, `use_bdlora` and others. The object
/// is written with the fields that the file had.
package protocol NestedLoRAVariant: LoRAVariant {
    /// Its option on the command line, whose value is `true` for the defaults, or the settings as JSON.
    static var option: String { get }
    /// The object's key in `adapter_config.json`.
    static var key: String { get }
    /// What the option does.
    static var help: String { get }
    /// All settings with Hugging Face's defaults.
    static var defaultSettings: [String: JSON] { get }
    /// The settings; `nil` if the object is null.
    var settings: [String: JSON]? { get set }
    /// - Throws: ``PEFTError`` for values of the settings that are out of range.
    func checkSettings() throws
}

extension NestedLoRAVariant {
    package var isEnabled: Bool { settings != nil }
    package func checkSettings() throws {}

    /// A setting, or its default.
    func setting(_ name: String) -> JSON { settings?[name] ?? Self.defaultSettings[name] ?? .null }

    package static var fields: [ConfigurationField<LoRAVariants>] { [settingsField] }

    /// The option that holds all settings.
    static var settingsField: ConfigurationField<LoRAVariants> {
        .init(option, key: key, .text, help: help, isExtension: true) {
            $0[Self.self].settings.map { JSON.object($0) } ?? .null
        } write: {
            $0[Self.self].settings = try read($1)
            try $0[Self.self].checkSettings()
        }
    }

    private static func read(_ json: JSON) throws -> [String: JSON]? {
        switch json {
        case .null, .bool(false): return nil
        case .bool(true), "true": return defaultSettings
        case .string(let text):
            guard case .object(let given) = try JSON.parse(Data(text.utf8), name: "--\(option)") else {
                throw PEFTError("--\(option) is '\(text)'", remedy: "use true, or an object as in \(example)")
            }
            return try read(.object(given)).map { defaultSettings.merging($0) { $1 } }
        case .object(let given):
            if let unknown = given.keys.sorted().first(where: { defaultSettings[$0] == nil }) {
                throw PEFTError(
                    "'\(key)' has the unknown setting '\(unknown)'",
                    remedy: "use \(defaultSettings.keys.sorted().joined(separator: ", "))")
            }
            return given
        default:
            throw PEFTError("'\(key)' is \(json.text(indent: nil))", remedy: "use an object as in \(example)")
        }
    }

    private static var example: String { JSON.object(defaultSettings).text(indent: nil) }

    /// A positive number among the settings.
    func positive(_ name: String) throws -> Double {
        guard let value = setting(name).double, value > 0, value.isFinite else {
            throw PEFTError(
                "'\(name)' in '\(Self.key)' is \(setting(name).text(indent: nil))", remedy: "use a value above 0")
        }
        return value
    }

    /// A positive integer among the settings.
    func count(_ name: String, most: Int = 65536) throws -> Int {
        guard let value = setting(name).int, (1...most).contains(value) else {
            throw PEFTError(
                "'\(name)' in '\(Self.key)' is \(setting(name).text(indent: nil))",
                remedy: "use an integer from 1 to \(most)")
        }
        return value
    }

    /// The error for an embedding among the targets, which Hugging Face PEFT rejects as well.
    static func embeddingError(_ path: String) -> PEFTError {
        PEFTError(
            "\(key) doesn't support the embedding '\(path)'",
            remedy: "remove it from the targets, or remove --\(option)")
    }
}
