import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Training

/// The records of a run, without a model.
struct RunLogTests {
    private let description = RunDescription(
        model: "owner/base", method: "LoRA r 8", data: "train.jsonl", trainingExamples: 6, validationExamples: 2,
        trainable: 10, total: 100, totalSteps: 4)

    private func step(_ number: Int, loss: Double) -> TrainingEvent {
        .step(
            TrainingProgress(
                step: number, totalSteps: 4, epoch: Double(number) / 4, loss: loss, learningRate: 1e-3,
                gradientNorm: 0.5, tokensPerSecond: 250, memory: 1 << 30, secondsLeft: 1))
    }

    /// The records of an event file, with lengths and checksums checked.
    private func events(in folder: URL) throws -> [[UInt8]] {
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
        return try names.filter { $0.hasPrefix("events.out.tfevents.") }.flatMap { name in
            var rest = [UInt8](try Data(contentsOf: folder.appendingPathComponent(name)))[...]
            func take(_ count: Int) -> [UInt8] {
                defer { rest = rest.dropFirst(count) }
                return Array(rest.prefix(count))
            }
            func number(_ bytes: [UInt8]) -> Int { bytes.reversed().reduce(0) { $0 << 8 | Int($1) } }
            var events: [[UInt8]] = []
            while !rest.isEmpty {
                let length = take(8)
                #expect(number(take(4)) == Int(CRC32C.masked(length)))
                let event = take(number(length))
                #expect(number(take(4)) == Int(CRC32C.masked(event)))
                events.append(event)
            }
            return events
        }
    }

    /// The check value of the CRC catalog, and the value for 32 zero bytes of RFC 3720.
    @Test func checksums() {
        #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xE306_9283)
        #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(CRC32C.checksum([]) == 0)
    }

    @Test func eventsAndRowsHoldWhatWasTrained() throws {
        try withTemporaryFolder { folder in
            let log = try RunLog(folder, description)
            try log.record(step(1, loss: 2.5))
            try log.record(step(2, loss: 1.25))
            try log.record(.validation(step: 2, loss: 1.5, isBest: true))
            try log.record(.checkpoint(step: 2))
            try log.record([.init(prompt: "a, \"b\"\n", target: "é", output: "")], step: 2)
            let events = try events(in: folder)
            #expect(events.count == 4)
            // Event 0: file_version, field 3, after wall_time, field 1 (a double).
            #expect(events[0][0] == 0x09 && events[0][9...].elementsEqual([0x1A, 13] + Array("brain.Event:2".utf8)))
            // step, field 2, is a variable-length integer.
            #expect(Array(events[3][9..<11]) == [0x10, 2])
            let value = Array("eval/loss".utf8) + [0x15] + ProtobufMessage.littleEndian(Float(1.5).bitPattern)
            #expect(Array(events[3].suffix(value.count)) == value)

            let text = try String(contentsOf: folder.appendingPathComponent("metrics.csv"), encoding: .utf8)
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            #expect(lines[0] + "\n" == RunMetrics.header && lines.count == 5)
            #expect(lines[2].hasPrefix("2,") && lines[2].hasSuffix(",0.5,1.25,0.001,0.5,250,1073741824,"))
            #expect(lines[3].hasPrefix("2,") && lines[3].hasSuffix(",,,,,,,1.5"))
            let metrics = RunMetrics.read(in: folder)
            #expect(metrics.steps.map(\.loss) == [2.5, 1.25] && metrics.validations.map(\.validationLoss) == [1.5])
            #expect(ValidationSamples.read(in: folder).first?.samples.first?.prompt == "a, \"b\"\n")
            #expect(RunDescription.read(in: folder)?.actualState == .running)
            try log.end(.finished)
            #expect(RunDescription.read(in: folder)?.state == .finished)
            #expect(RunDescription.read(in: folder)?.process == nil)
        }
    }

    /// A resumed run drops the rows and samples that it repeats, and a half-written line.
    @Test func aResumedRunContinuesItsRecords() throws {
        try withTemporaryFolder { folder in
            let log = try RunLog(folder, description)
            for number in 1...3 {
                try log.record(step(number, loss: Double(number)))
                try log.record([.init(prompt: "p", target: "t", output: "\(number)")], step: number)
            }
            try AppendedFile(folder.appendingPathComponent("metrics.csv")).append("4,17")
            let resumed = try RunLog(folder, description, resumingAfter: 2)
            try resumed.record(step(3, loss: 30))
            #expect(RunMetrics.read(in: folder).steps.map(\.loss) == [1, 2, 30])
            #expect(ValidationSamples.read(in: folder).map(\.step) == [1, 2])
            // SessionLog {1: START} in field 7, at step 3.
            #expect(try events(in: folder).contains { $0.dropFirst(9).elementsEqual([0x10, 3, 0x3A, 2, 0x08, 1]) })
            // From scratch, nothing of the earlier run is left; other files are.
            try Data("mine".utf8).write(to: folder.appendingPathComponent("notes.txt"))
            _ = try RunLog(folder, description)
            #expect(RunMetrics.read(in: folder).rows.isEmpty && ValidationSamples.read(in: folder).isEmpty)
            #expect(try events(in: folder).count == 1)
            #expect(FileManager.default.fileExists(atPath: folder.appendingPathComponent("notes.txt").path))
        }
    }

    /// The file of a killed process says that it runs.
    @Test func aKilledRunIsInterrupted() throws {
        var killed = description
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "exit 0"]
        try process.run()
        process.waitUntilExit()
        killed.process = Int(process.processIdentifier)
        #expect(killed.actualState == .interrupted && description.actualState == .running)
        killed.process = .max
        #expect(killed.actualState == .running)
    }

    @Test func foldersThatCannotBeWrittenAreErrors() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("file")
            try Data().write(to: file)
            #expect(throws: PEFTError.self) { try RunLog(file.appendingPathComponent("runs"), description) }
        }
    }
}
