import Foundation
import PEFTSupport

/// The contents of `metrics.csv`: a row for each step, and one for each validation.
package struct RunMetrics: Sendable {
    package static let fileName = "metrics.csv"
    static let header =
        "step,time,epoch,loss,learning_rate,gradient_norm,tokens_per_second,memory_bytes,validation_loss\n"

    package struct Row: Codable, Sendable, Equatable {
        package var step: Int
        /// Seconds since 1970.
        package var time: Double
        package var epoch: Double?
        package var loss: Double?
        package var learningRate: Double?
        package var gradientNorm: Double?
        package var tokensPerSecond: Double?
        package var memory: Double?
        package var validationLoss: Double?

        /// The row of a step.
        init(_ progress: TrainingProgress, time: Double) {
            (step, self.time, epoch, loss) = (progress.step, time, progress.epoch, progress.loss)
            (learningRate, gradientNorm) = (progress.learningRate, progress.gradientNorm)
            (tokensPerSecond, memory) = (progress.tokensPerSecond, progress.memory.map(Double.init))
        }

        /// The row of a validation.
        init(validationLoss: Double, step: Int, time: Double) {
            (self.step, self.time, self.validationLoss) = (step, time, validationLoss)
        }

        init?(_ line: Substring) {
            let cells = line.split(separator: ",", omittingEmptySubsequences: false).map { Double($0) }
            guard cells.count == 9, let step = cells[0].flatMap({ Int(exactly: $0) }), let time = cells[1] else {
                return nil
            }
            (self.step, self.time, epoch, loss) = (step, time, cells[2], cells[3])
            (learningRate, gradientNorm, tokensPerSecond) = (cells[4], cells[5], cells[6])
            (memory, validationLoss) = (cells[7], cells[8])
        }

        /// Floats in their shortest form that reads back as the same.
        var line: String {
            let cells = [
                epoch, loss, learningRate, gradientNorm, tokensPerSecond, memory, validationLoss,
            ].map { value in
                guard let value else { return "" }
                return value.magnitude < 1e15 && value == value.rounded() ? String(Int(value)) : "\(value)"
            }
            return "\(step),\(String(format: "%.3f", time))," + cells.joined(separator: ",") + "\n"
        }
    }

    package var rows: [Row]

    package init(rows: [Row] = []) { self.rows = rows }

    /// Rows with a training loss.
    package var steps: [Row] { rows.filter { $0.loss != nil } }
    package var validations: [Row] { rows.filter { $0.validationLoss != nil } }

    /// Reads the complete lines of the file; a line that is being written, or that others changed, is skipped.
    package static func read(in folder: URL) -> RunMetrics {
        RunMetrics(rows: wholeLines(folder.appendingPathComponent(fileName)).compactMap { Row($0) })
    }

    /// The lines of a file that end in a line break.
    static func wholeLines(_ file: URL) -> [Substring] {
        guard let data = try? Data(contentsOf: file) else { return [] }
        let text = String(decoding: data, as: UTF8.self)
        guard let end = text.lastIndex(where: \.isNewline) else { return [] }
        return text[..<end].split(whereSeparator: \.isNewline)
    }
}
