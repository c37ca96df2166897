import Foundation
import PEFTSupport

/// A Jinja template, supporting what published chat templates use, with the semantics of the environment that
/// transformers renders them in: the immutable sandbox with `trim_blocks`, `lstrip_blocks`, loop controls,
/// `{% generation %}`, `raise_exception`, `strftime_now`, and a `tojson` that escapes no HTML.
///
/// It is parsed once and rendered many times. Templates are untrusted code: their computation is limited, and
/// unsupported constructs are rejected by name.
package struct JinjaTemplate: Sendable {
    /// Its name in errors.
    package let name: String
    package let source: String
    /// Whether the template has `{% generation %}` blocks.
    package let hasGenerationBlocks: Bool
    private let body: [Statement]

    /// The result of rendering.
    package struct Rendering {
        package var text: String
        /// Byte ranges of the output of generation blocks, in order.
        package var generated: [Range<Int>]
    }

    /// - Throws: ``PEFTError`` naming the line and what is wrong or unsupported there.
    package init(_ source: String, name: String = "the template") throws {
        (self.source, self.name) = (source, name)
        do { (body, hasGenerationBlocks) = try Parser.parse(source) } catch let failure as JinjaFailure {
            throw failure.error(in: name)
        }
    }

    /// - Parameters:
    ///   - variables: values of the template's variables.
    ///   - now: the time for `strftime_now`.
    /// - Throws: ``PEFTError`` naming the line, for an exception of the template, a use of an undefined value, an
    ///   unsupported construct, or an exceeded limit.
    package func render(_ variables: [String: JinjaValue], now: Date = Date()) throws -> Rendering {
        let interpreter = Interpreter(variables, now: now)
        do { try interpreter.run(body) } catch let failure as JinjaFailure { throw failure.error(in: name) }
        return Rendering(text: interpreter.output, generated: interpreter.generated)
    }
}
