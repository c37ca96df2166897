import Foundation
import Support

/// A Jinja template, as far as published chat templates use the language, with the semantics of the environment that
/// transformers renders them in: the immutable sandbox with `trim_blocks`, `lstrip_blocks`, loop controls,
/// `{% generation %}`, `raise_exception`, `strftime_now`, and a `tojson` that escapes no HTML.
///
/// It is parsed once and rendered many times. A template is somebody else's code: what it may compute is limited, and
/// a construct that isn't supported is refused by name, never guessed.
public struct JinjaTemplate: Sendable {
    /// What errors call it.
    public let name: String
    public let source: String
    /// Whether the template says itself what the model writes.
    public let hasGenerationBlocks: Bool
    private let body: [Statement]

    /// What a rendering made.
    public struct Rendering {
        public var text: String
        /// What generation blocks wrote, in bytes of the text, in order.
        public var generated: [Range<Int>]
    }

    /// - Throws: ``PEFTError`` naming the line and what is wrong or not supported there.
    public init(_ source: String, name: String = "the template") throws {
        (self.source, self.name) = (source, name)
        do { (body, hasGenerationBlocks) = try Parser.parse(source) } catch let failure as JinjaFailure {
            throw failure.error(in: name)
        }
    }

    /// - Parameters:
    ///   - variables: what the template's names mean, beside its own functions.
    ///   - now: the time that `strftime_now` tells.
    /// - Throws: ``PEFTError`` naming the line: what the template raised, an undefined value that was computed with, a
    ///   construct that isn't supported, or a limit.
    public func render(_ variables: [String: JinjaValue], now: Date = Date()) throws -> Rendering {
        let interpreter = Interpreter(variables, now: now)
        do { try interpreter.run(body) } catch let failure as JinjaFailure { throw failure.error(in: name) }
        return Rendering(text: interpreter.output, generated: interpreter.generated)
    }
}
