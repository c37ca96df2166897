import Foundation
import PEFTSupport
import TestSupport
import Testing

/// `peft train --again`, with a Llama of 16 hidden units.
struct RepeatedRunTests {
    /// The repetition starts in another folder, has the options of a configuration file, and the same bits.
    @Test func aRunIsRepeatedBitForBit() throws {
        let program = try Program()
        defer { program.remove() }
        let rows = (0..<6).map { #"{"q": "Tom \#($0)", "a": "ran away \#($0)"}"# }.joined(separator: "\n")
        let files = FileManager.default
        let work = program.folder.appendingPathComponent("work")
        try files.createDirectory(at: work, withIntermediateDirectories: true)
        try program.write("work/rows.jsonl", rows)
        let llama = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat/model")
        try files.copyItem(at: llama, to: work.appendingPathComponent("llama"))
        try program.write(
            "work/run.yaml",
            "model: llama\ndata: rows.jsonl\nprompt: '{q}'\ntarget: '{a}'\nbatch-size: 2\nsteps: 3\nrank: 3\nseed: 7\n"
        )
        let first = try program.run(
            ["train", "--quiet", "--config", "run.yaml", "--validation", "rows.jsonl", "--output", "../first"],
            in: work)
        #expect(first.status == 0, "\(first.error)")

        let again = try program.run(["train", "--again", "first", "--output", "second"])
        #expect(again.status == 0, "\(again.error)")
        #expect(again.error.contains("losses and weights are those of") && !again.error.contains("differ"))
        func weights(_ name: String) throws -> Data {
            try Data(contentsOf: program.folder.appendingPathComponent("\(name)/adapter_model.safetensors"))
        }
        #expect(try weights("first") == weights("second"))
        let records = try ["first", "second"].map {
            try JSON.read(program.folder.appendingPathComponent("\($0)/training.json"))
        }
        #expect(records[0]["history"] == records[1]["history"] && records[0]["origin"] == records[1]["origin"])
        let origin = records[0]["origin"]
        #expect(origin?["threads"] == 1 && origin?["base"]?.string != nil && origin?["examples"]?.string != nil)
        #expect(origin?["arguments"]?.array?.contains("--rank=3") == true)
        #expect(origin?["files"]?.array?.count == 1)

        // Options that change the run, and other numbers of threads.
        let other = try program.run(["train", "--again", "first", "--output", "third", "--rank", "4"])
        #expect(other.status == 64 && other.error.contains("--rank=4"), "\(other.error)")
        let threads = try program.run(
            ["train", "--again", "first", "--output", "third", "--threads", "2", "--quiet"])
        #expect(
            threads.status == 0 && threads.error.contains("may differ")
                && threads.error.contains("threads: 1 then, 2 now"),
            "\(threads.error)")

        // Other weights, no model, other data.
        let model = work.appendingPathComponent("llama/model.safetensors")
        var bytes = try Data(contentsOf: model)
        let size = bytes.prefix(8).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
        bytes[8 + size + 1] ^= 1
        try bytes.write(to: model)
        let changed = try program.run(["train", "--again", "first", "--output", "fourth"])
        #expect(changed.status == 1 && changed.error.contains("the base model has changed"), "\(changed.error)")
        try files.removeItem(at: work.appendingPathComponent("llama"))
        let without = try program.run(["train", "--again", "first", "--output", "fourth"])
        #expect(without.status == 1 && without.error.contains("llama"), "\(without.error)")
        try program.write("work/rows.jsonl", rows + "\n" + #"{"q": "Tom", "a": "stayed"}"#)
        let data = try program.run(["train", "--again", "first", "--output", "fourth"])
        #expect(data.status == 1 && data.error.contains("rows.jsonl has changed"), "\(data.error)")
        #expect(!program.files.contains("fourth"))
        let none = try program.run(["train", "--again", "work", "--output", "fourth"])
        #expect(none.status == 1 && none.error.contains("has no training.json"), "\(none.error)")
    }
}
