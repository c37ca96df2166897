import Foundation
import PEFTSupport
import TestSupport
import Testing
import TorchTestSupport

@testable import Torch

/// GGUF files are read as gguf-py reads them (`make_gguf_types.py`), and what is damaged ends in one line.
@Suite struct GGUFFileTests {
    private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Fixtures/gguf")
    private static let types = fixtures.appendingPathComponent("types.gguf")

    @Test(arguments: GGUFType.allCases) func numbersAreTheReferences(type: GGUFType) throws {
        let file = try GGUFFile(Self.types)
        let expected = try SafetensorsFile(Self.fixtures.appendingPathComponent("types.safetensors"))
        #expect(file.type(of: type.name) == type)
        let numbers = try file.tensor(type.name)
        #expect(numbers.to(.float32).isIdentical(to: try expected.tensor(type.name)))
        #expect(file.entries[type.name]?.shape == numbers.shape)
    }

    /// Packed in groups, a matrix means the same numbers: bit for bit where parts have no minimum.
    @Test(arguments: GGUFType.allCases.filter { $0.plain == nil }) func packedMatricesMeanTheSame(type: GGUFType)
        throws
    {
        let file = try GGUFFile(Self.types)
        let numbers = try file.tensor(type.name)
        let rows = numbers.dim(0)
        for order in [nil, Array((0..<rows).reversed())] as [[Int]?] {
            let packed = try file.packed(type.name, rowOrder: order)
            let zeros = packed.zeros ?? .full(packed.scales.shape, Double(type.zero))
            let matrix = GroupQuantizedMatrix(
                packed: packed.integers, scales: packed.scales, zeros: zeros, bits: type.packedBits,
                groupSize: type.group, zeroOffset: 0)
            let dense = try withTorchErrors { matrix.dense(as: .float32) }
            let own = order.map { numbers.selecting(Tensor($0)) } ?? numbers
            #expect((packed.zeros != nil) == type.hasMinimum)
            if type.hasMinimum {
                #expect(relativeDifference(dense, own) < 1e-6)
            } else {
                #expect((dense - own).squared().sum().item() == 0)
            }
        }
        #expect(throws: PEFTError.self) { try file.packed(type.name, rowOrder: [0]) }
    }

    @Test func settingsAreRead() throws {
        let settings = try GGUFFile(Self.types).settings
        #expect(settings["general.architecture"] == .string("llama"))
        #expect(settings["a.text"]?.string == "grüße")
        #expect(settings["a.texts"]?.list?.strings == ["a", "ein Text", ""])
        #expect(settings["a.numbers"]?.list?.numbers == [1.5, -2.5])
        #expect(settings["a.lists"]?.list?.count == 2)
        #expect(settings["a.lists"]?.list?.numbers == nil)
        #expect(settings["a.flag"]?.flag == true)
        #expect(settings["a.integer"]?.integer == -(1 << 40))
        #expect(settings["a.double"]?.number == 0.1)
        #expect(settings["a.text"]?.number == nil)
    }

    // MARK: Writing

    /// ‖error‖ / ‖values‖ of Gaussian values, near what the bits allow.
    @Test(arguments: [
        (GGUFType.q8_0, 0.0055), (.q4_0, 0.088), (.q4_1, 0.080), (.q5_0, 0.044), (.q5_1, 0.039), (.q6_K, 0.0185),
        (.q5_K, 0.037), (.q4_K, 0.074),
    ]) func quantizedNumbersAreNear(type: GGUFType, limit: Double) throws {
        func ratio(_ a: Tensor, _ b: Tensor) -> Double {
            (a.squared().sum().item() / b.squared().sum().item()).squareRoot()
        }
        var random = SeededRandom(seed: 5)
        let numbers = Tensor.zeros([16, 512])
        numbers.fillNormal(deviation: 0.02, from: &random)
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("a.gguf")
            try GGUFFile.write([], [.init("w", [16, 512], type) { numbers }], to: file)
            let stored = try GGUFFile(file).tensor("w").to(.float32)
            let error = ratio(stored - numbers, numbers)
            #expect(error < limit)
            #expect(error > limit * 0.8)
            // What was read lies on a grid already.
            try GGUFFile.write([], [.init("w", [16, 512], type) { stored }], to: file)
            let again = try GGUFFile(file).tensor("w").to(.float32)
            #expect(ratio(again - stored, stored) < limit * 0.6)
        }
    }

    /// Zeros, constants, one large value and NaN.
    @Test(arguments: GGUFType.written.filter { $0.plain == nil }) func unusualBlocksAreFinite(type: GGUFType) throws {
        var values = [Float](repeating: 0, count: 1024)
        for i in 256..<512 { values[i] = -3 }
        (values[600], values[800], values[801]) = (1e6, .nan, .infinity)
        let numbers = Tensor(values).reshaped([4, 256])
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("a.gguf")
            try GGUFFile.write([], [.init("w", [4, 256], type) { numbers }], to: file)
            let stored = try GGUFFile(file).tensor("w").to(.float32).array(Float.self)
            let isFinite = stored.allSatisfy(\.isFinite)
            let error = stored[256..<512].reduce(0) { max($0, abs($1 + 3)) }
            #expect(isFinite)
            #expect(Set(stored[..<256]) == [0])
            #expect(error < 0.02)
            #expect(stored[800] == 0)
            #expect(stored[801] == 0)
        }
    }

    // MARK: Damage

    private func read(_ change: (inout [UInt8]) -> Void) throws -> GGUFFile {
        try withTemporaryFolder { folder in
            var bytes = [UInt8](try Data(contentsOf: Self.types))
            change(&bytes)
            let file = folder.appendingPathComponent("a.gguf")
            try Data(bytes).write(to: file)
            return try GGUFFile(file)
        }
    }

    /// Where an entry of the header stands behind the tensor's name.
    private static func place(of name: String, in bytes: [UInt8]) throws -> Int {
        let key = withUnsafeBytes(of: UInt64(name.utf8.count).littleEndian) { Array($0) } + Array(name.utf8)
        let start = bytes.indices.first { bytes[$0...].starts(with: key) }
        return try #require(start) + key.count
    }

    private func refused(
        _ word: String, sourceLocation: SourceLocation = #_sourceLocation, _ change: (inout [UInt8]) -> Void
    ) throws {
        let error = try #require(throws: PEFTError.self, sourceLocation: sourceLocation) { try read(change) }
        #expect(error.problem.contains(word), "\(error.problem)", sourceLocation: sourceLocation)
    }

    @Test func damageIsNamed() throws {
        let place = try Self.place(of: "Q4_K", in: [UInt8](try Data(contentsOf: Self.types)))
        func write(_ value: UInt64, _ size: Int, at place: Int, _ bytes: inout [UInt8]) {
            for i in 0..<size { bytes[place + i] = UInt8(truncatingIfNeeded: value >> UInt64(8 * i)) }
        }
        try refused("not a GGUF file") { $0[0] = 0 }
        try refused("not a GGUF file") { $0 = Array($0.prefix(20)) }
        try refused("version 1") { $0[4] = 1 }
        try refused("version 50331648") { write(3 << 24, 4, at: 4, &$0) }
        for count in [UInt64.max, 1 << 62, 1 << 40] {
            try refused("t") { write(count, 8, at: 8, &$0) }
            try refused("t") { write(count, 8, at: 16, &$0) }
        }
        try refused("axes") { write(5, 4, at: place, &$0) }
        try refused("IQ3_S") { write(21, 4, at: place + 20, &$0) }
        try refused("number 99") { write(99, 4, at: place + 20, &$0) }
        try refused("a multiple of its block size") { write(255, 8, at: place + 4, &$0) }
        try refused("has an invalid shape") { write(1 << 62, 8, at: place + 12, &$0) }
        try refused("too large") { write(.max, 8, at: place + 12, &$0) }
        try refused("beyond the end of the file") { write(1 << 30, 8, at: place + 12, &$0) }
        try refused("beyond the end of the file") { write(1 << 40, 8, at: place + 24, &$0) }
        try refused("aligned") { write(8, 8, at: place + 24, &$0) }
        try refused("two tensors") { $0.replaceSubrange((place - 1)..<place, with: [UInt8(ascii: "0")]) }
        try refused("beyond the end of the file") { $0.removeLast(64) }
        #expect(try read { _ in }.entries.count == GGUFType.allCases.count)
    }

    /// Whatever happens to the bytes, the answer is tensors or an error.
    @Test func mutationsEndInErrors() throws {
        let original = [UInt8](try Data(contentsOf: Self.types))
        // The header, and some of the data.
        let (head, tail) = (Array(original.prefix(1400)), Array(original.dropFirst(1400)))
        var random = SeededRandom(seed: 5)
        var (intact, refused) = (0, 0)
        for _ in 0..<600 {
            do {
                let file = try read { $0 = mutated(head, &random) + tail }
                for (key, tensor) in try file.tensors() { #expect(tensor.shape == file.entries[key]?.shape) }
                for (key, entry) in file.entries where entry.shape.count == 2 { _ = try? file.packed(key) }
                for value in file.settings.values { _ = (value.list?.strings, value.list?.numbers) }
                intact += 1
            } catch is PEFTError { refused += 1 }
        }
        #expect(intact > 0 && refused > 0)
    }
}
