import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Torch

@Suite struct SafetensorsTests {
    /// What `make_safetensors_fixtures.py` writes, and what is written for it to read.
    private static var samples: [String: Tensor] {
        var tensors = Dictionary(
            uniqueKeysWithValues: DType.allCases.map { dtype in
                let values = (0..<6).map { dtype == .bool ? $0 % 2 : $0 }
                return ("a.\(dtype.rawValue)", Tensor(values, shape: [2, 3]).to(dtype))
            })
        tensors["scalar"] = Tensor([3.5], shape: [])
        tensors["empty"] = Tensor([Float](), shape: [0, 4])
        tensors["größe \"1\"\n"] = Tensor([-1, 0, 1] as [Float])
        return tensors
    }
    private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Fixtures")

    private func expectSamples(_ file: SafetensorsFile, sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(Set(file.entries.keys) == Set(Self.samples.keys), sourceLocation: sourceLocation)
        for (name, tensor) in Self.samples {
            #expect(try file.tensor(name).isIdentical(to: tensor), "\(name)", sourceLocation: sourceLocation)
            #expect(file.entries[name]?.shape == tensor.shape, sourceLocation: sourceLocation)
        }
    }

    @Test func allTypesSurvive() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("a.safetensors")
            try SafetensorsFile.write(Self.samples, metadata: ["format": "pt", "é": "\"x\"\n"], to: url)
            let file = try SafetensorsFile(url)
            #expect(file.metadata == ["format": "pt", "é": "\"x\"\n"])
            try expectSamples(file)
            try SafetensorsFile.write([:], to: url)
            #expect(try SafetensorsFile(url).entries.isEmpty)
            // A view is written row-major, as it reads.
            let matrix = random(3, 4, seed: 1)
            try SafetensorsFile.write(["t": matrix.T], to: url)
            #expect(try SafetensorsFile(url).tensor("t").array(Double.self) == matrix.T.contiguous().array())
        }
    }

    @Test func filesOfTheReferenceWriterAreRead() throws {
        let file = try SafetensorsFile(Self.fixtures.appendingPathComponent("python.safetensors"))
        #expect(file.metadata == ["format": "pt"])
        try expectSamples(file)
    }

    /// Written with `PEFT_WRITE_FIXTURES` set, and read by the reference reader in `make_safetensors_fixtures.py`.
    @Test func filesAreTheOnesThatTheReferenceReaderRead() throws {
        let committed = Self.fixtures.appendingPathComponent("swift.safetensors")
        if ProcessInfo.processInfo.environment["PEFT_WRITE_FIXTURES"] != nil {
            try SafetensorsFile.write(Self.samples, metadata: ["format": "pt"], to: committed)
        }
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("a.safetensors")
            try SafetensorsFile.write(Self.samples, metadata: ["format": "pt"], to: url)
            #expect(try Data(contentsOf: url) == Data(contentsOf: committed))
        }
    }

    // MARK: Mapping

    @Test func elementsAreNotCopiedAndTheFileIsNeverWritten() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("mapped-\(UUID().uuidString).safetensors")
            try SafetensorsFile.write(["x": Tensor([1, 2, 3] as [Float]), "y": Tensor([4.0])], to: url)
            let bytes = try Data(contentsOf: url)
            var tensor: Tensor?
            do {
                let file = try SafetensorsFile(url)
                let first = try file.tensor("x")
                let second = try file.tensor("x")
                first.fill(9)
                #expect(second.array(Float.self) == [9, 9, 9], "both lie over the same bytes")
                #expect(try file.tensor("y").item() == 4)
                tensor = first
            }
            #expect(try Data(contentsOf: url) == bytes)
            #expect(try SafetensorsFile(url).tensor("x").array(Float.self) == [1, 2, 3])
            // The mapping lives as long as a tensor over it, even without the file.
            try FileManager.default.removeItem(at: url)
            #expect(tensor?.array(Float.self) == [9, 9, 9])
            #if os(Linux)
                func isMapped() throws -> Bool {
                    // Foundation's reader stops after the first page of such a file.
                    let maps = try #require(FileHandle(forReadingAtPath: "/proc/self/maps")).readToEnd() ?? Data()
                    return String(decoding: maps, as: UTF8.self).contains(url.lastPathComponent)
                }
                #expect(try isMapped())
                tensor = nil
                #expect(try !isMapped(), "the last tensor gives the mapping back")
            #endif
        }
    }

    // MARK: Damage

    private func read(header: String, data: Data = Data(count: 8), length: UInt64? = nil) throws {
        var bytes = withUnsafeBytes(of: (length ?? UInt64(header.utf8.count)).littleEndian) { Data($0) }
        bytes.append(Data(header.utf8))
        bytes.append(data)
        try read(bytes)
    }

    private func read(_ bytes: Data) throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("damaged.safetensors")
            try bytes.write(to: url)
            _ = try SafetensorsFile(url)
        }
    }

    static let wrongHeaders: [(String, String)] = [
        ("no JSON", "this is not JSON at all"),
        ("an array", "[1, 2]"),
        ("a truncated object", #"{"x": {"dtype": "F32", "shape": [2]"#),
        ("no fields", #"{"x": {}}"#),
        ("no object", #"{"x": 7}"#),
        ("no shape", #"{"x": {"dtype": "F32", "data_offsets": [0, 8]}}"#),
        ("a shape of strings", #"{"x": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}}"#),
        ("a fractional shape", #"{"x": {"dtype": "F32", "shape": [2.5], "data_offsets": [0, 8]}}"#),
        ("a negative size", #"{"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}"#),
        ("two negative sizes", #"{"x": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}}"#),
        ("an unknown type", #"{"x": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}}"#),
        ("a type of another size", #"{"x": {"dtype": "F64", "shape": [2], "data_offsets": [0, 8]}}"#),
        ("too few bytes", #"{"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}"#),
        ("an end beyond the file", #"{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}"#),
        ("a far begin", #"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [9000000000, 9000000008]}}"#),
        ("a negative begin", #"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}"#),
        ("offsets the wrong way round", #"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}"#),
        ("one offset", #"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [8]}}"#),
        ("three offsets", #"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}"#),
        (
            "a product that overflows",
            #"{"x": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}"#
        ),
        (
            "a byte count that overflows",
            #"{"x": {"dtype": "F64", "shape": [2305843009213693952], "data_offsets": [0, 0]}}"#
        ),
        ("a size beyond Int", #"{"x": {"dtype": "F32", "shape": [99999999999999999999], "data_offsets": [0, 8]}}"#),
        ("a gap", #"{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#),
        ("bytes that nobody owns", #"{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#),
        (
            "an overlap",
            #"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "y": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#
        ),
        (
            "a name that stands twice",
            #"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "x": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}"#
        ),
    ]

    @Test(arguments: wrongHeaders) func wrongHeader(what: String, header: String) throws {
        let error = try #require(throws: PEFTError.self, "\(what)") { try read(header: header) }
        #expect(error.description.contains("damaged.safetensors"))
        try read(header: #"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#)
    }

    @Test(arguments: [UInt64.max, UInt64.max / 2, 1 << 62, 1 << 40, 100_000_001, 1_000, 1, 0] as [UInt64])
    func wrongHeaderLength(length: UInt64) {
        #expect(throws: PEFTError.self) { try read(header: "{}", data: Data(), length: length) }
    }

    @Test func truncationsAreFound() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("whole.safetensors")
            try SafetensorsFile.write(["x": Tensor([1, 2, 3] as [Float]), "y": Tensor([4.0])], to: url)
            let bytes = try Data(contentsOf: url)
            for count in 0..<bytes.count {
                #expect(throws: PEFTError.self, "\(count) bytes") { try read(bytes.prefix(count)) }
            }
            try read(bytes)
            #expect(throws: PEFTError.self) { try read(bytes + [0]) }
        }
    }

    @Test func invalidUTF8IsFound() {
        var bytes = withUnsafeBytes(of: UInt64(4).littleEndian) { Data($0) }
        bytes.append(contentsOf: [0x7B, 0xFF, 0xFE, 0x7D])
        #expect(throws: PEFTError.self) { try read(bytes) }
    }

    @Test func namesThatAreMissingNameTheNearest() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("a.safetensors")
            try SafetensorsFile.write(["lora_A.weight": .ones([1])], to: url)
            let error = try #require(throws: PEFTError.self) { try SafetensorsFile(url).tensor("lora_B.weight") }
            #expect(error.remedy == "did you mean 'lora_A.weight'?")
            let absent = folder.appendingPathComponent("absent.safetensors")
            #expect(try #require(throws: PEFTError.self) { try SafetensorsFile(absent) }.problem.contains("absent"))
        }
    }

    // MARK: Failing writes

    /// The temporary neighbor is a link to a device that is always full.
    @Test(.enabled(if: FileManager.default.fileExists(atPath: "/dev/full"), "this system has no /dev/full"))
    func aFullDiskLeavesTheOldFile() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("a.safetensors")
            try SafetensorsFile.write(["x": .ones([2])], to: url)
            let before = try Data(contentsOf: url)
            try FileManager.default.createSymbolicLink(
                atPath: "\(url.path).tmp-\(getpid())", withDestinationPath: "/dev/full")
            let error = try #require(throws: PEFTError.self) {
                try SafetensorsFile.write(["x": .ones([100_000])], to: url)
            }
            #expect(error.problem.contains(url.path) && error.remedy?.contains("space") == true)
            #expect(try Data(contentsOf: url) == before)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["a.safetensors"])
        }
    }

    @Test func whatCannotBeReadIsNotWritten() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("a.safetensors")
            #expect(throws: PEFTError.self) {
                try SafetensorsFile.write(["x": .ones([2]), "y": .empty([2], device: .meta)], to: url)
            }
            let left = try FileManager.default.contentsOfDirectory(atPath: folder.path)
            #expect(left.isEmpty)
            #expect(throws: PEFTError.self) {
                try SafetensorsFile.write(["x": .ones([2])], to: folder.appendingPathComponent("no/such/folder/a"))
            }
        }
    }
}
