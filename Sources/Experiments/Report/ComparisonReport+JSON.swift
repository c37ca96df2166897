import Foundation
import PEFTSupport
import Torch

extension ComparisonReport {
    /// Reads a report written by ``json()``.
    /// - Throws: ``PEFTError`` if the file can't be read or is not a comparison report.
    public static func read(_ file: URL) throws -> ComparisonReport {
        guard let data = try? Data(contentsOf: file) else {
            throw PEFTError("can't read \(file.path)", remedy: "pass a file written by peft compare --output")
        }
        do { return try ReportJSON.report(ComparisonReport.self, from: data) } catch {
            throw PEFTError(
                "\(file.path) is not a comparison report", remedy: "pass a file written by peft compare --output"
            )
        }
    }

    /// The report as JSON, keys sorted.
    public func json() throws -> Data { try ReportJSON.data(self) }
}

extension ComparisonReport.Machine {
    /// This machine.
    package static var current: Self {
        let info = ProcessInfo.processInfo
        return .init(
            processor: Runtime.processor ?? "unknown processor", threads: Runtime.threads,
            memoryBytes: Int(clamping: info.physicalMemory), system: info.operatingSystemVersionString)
    }
}
