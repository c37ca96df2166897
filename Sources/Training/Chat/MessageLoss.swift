import PEFTJinja
import PEFTSupport

/// Per-message loss masks: OpenAI's `weight` (0 or 1) and axolotl's `train` (true or false).
enum MessageLoss {
    private static let fields = ["weight", "train"]

    /// Whether the message may contribute to the loss.
    static func isLearned(_ message: JinjaValue) -> Bool {
        fields.allSatisfy { message.dictionary?[$0].flatMap(value) ?? true }
    }

    /// - Parameter place: the message's name in errors.
    /// - Throws: ``PEFTError`` for any other value, such as a weight between 0 and 1.
    static func check(_ message: JinjaValue, _ place: String) throws {
        for field in fields {
            guard let given = message.dictionary?[field], !given.isNone, value(given) == nil else { continue }
            throw PEFTError(
                "'\(field)' of \(place) is \(given.jsonText ?? "not a number")",
                remedy:
                    "use \(field == "weight" ? "0 (no loss) or 1" : "true or false"); other values are not supported"
            )
        }
    }

    private static func value(_ value: JinjaValue) -> Bool? {
        switch value {
        case .boolean(let value): value
        case .integer(0), .number(0): false
        case .integer(1), .number(1): true
        default: nil
        }
    }
}
