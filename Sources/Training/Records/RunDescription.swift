import Foundation
import PEFTSupport

/// The contents of `run.json`: what a training run is, and how it ended.
package struct RunDescription: Codable, Sendable, Equatable {
    package static let fileName = "run.json"

    package enum State: String, Codable, Sendable { case running, finished, interrupted, failed }

    /// The base model as named by the user.
    package var model: String
    /// The method with its main settings, such as `LoRA, rank 8`.
    package var method: String
    package var data: String
    package var trainingExamples: Int
    package var validationExamples: Int
    package var trainable: Int
    package var total: Int
    package var totalSteps: Int
    /// When the run began, or was resumed, in seconds since 1970.
    package var started: Double
    package var state = State.running
    /// Why it failed.
    package var message: String?
    /// The process of a running run, and its machine.
    package var process: Int?
    package var host: String?

    package init(
        model: String, method: String, data: String, trainingExamples: Int, validationExamples: Int, trainable: Int,
        total: Int, totalSteps: Int
    ) {
        (self.model, self.method, self.data) = (model, method, data)
        (self.trainingExamples, self.validationExamples) = (trainingExamples, validationExamples)
        (self.trainable, self.total, self.totalSteps) = (trainable, total, totalSteps)
        started = Date().timeIntervalSince1970
        (process, host) = (Int(getpid()), Self.hostName)
    }

    /// The state, which the file of a killed process misstates.
    package var actualState: State {
        guard state == .running, let process, let process = pid_t(exactly: process), process > 0,
            host == Self.hostName
        else { return state }
        return kill(process, 0) != 0 && errno == ESRCH ? .interrupted : .running
    }

    private static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func write(into folder: URL) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        try AtomicFile.write(encoder.encode(self), to: folder.appendingPathComponent(Self.fileName))
    }

    /// - Returns: `nil` without a readable description.
    package static func read(in folder: URL) -> RunDescription? {
        guard let data = try? Data(contentsOf: folder.appendingPathComponent(fileName)) else { return nil }
        return try? JSONDecoder().decode(RunDescription.self, from: data)
    }
}
