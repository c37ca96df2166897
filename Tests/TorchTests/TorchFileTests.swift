import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Torch

/// Files of `torch.save`; the well-formed ones are written by `make_torch_fixtures.py`.
@Suite struct TorchFileTests {
    private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Fixtures")

    @Test(arguments: ["present.pt", "legacy.pt"]) func allThatTorchSavesIsRead(name: String) throws {
        let file = try TorchFile(Self.fixtures.appendingPathComponent(name))
        let expected = try SafetensorsFile(Self.fixtures.appendingPathComponent("torch.safetensors"))
        #expect(Set(file.entries.keys) == Set(expected.entries.keys))
        for (key, entry) in expected.entries {
            #expect(file.entries[key]?.dtype == entry.dtype && file.entries[key]?.shape == entry.shape, "\(key)")
            #expect(try file.tensor(key).isIdentical(to: expected.tensor(key)), "\(key)")
        }
        let error = try #require(throws: PEFTError.self) { try file.tensor("scalars") }
        #expect(error.remedy == "did you mean 'scalar'?")
    }

    @Test func storagesAreSharedAndTheFileIsNeverWritten() throws {
        let url = Self.fixtures.appendingPathComponent("present.pt")
        let before = try Data(contentsOf: url)
        let file = try TorchFile(url)
        try file.tensor("shared.whole").fill(7)
        #expect(try file.tensor("shared.tied").array(Float.self).allSatisfy { $0 == 7 })
        #expect(try file.tensor("shared.rows").array(Float.self).allSatisfy { $0 == 7 })
        #expect(try Data(contentsOf: url) == before)
    }

    // MARK: Pickles

    /// Instructions of a pickle, by hand.
    private struct Pickle {
        var bytes: [UInt8] = [0x80, 2]
        mutating func add(_ more: UInt8...) { bytes += more }
        mutating func text(_ text: String) {
            bytes.append(UInt8(ascii: "X"))
            bytes += withUnsafeBytes(of: UInt32(text.utf8.count).littleEndian) { Array($0) }
            bytes += Array(text.utf8)
        }
        mutating func global(_ module: String, _ name: String) { bytes += Array("c\(module)\n\(name)\n".utf8) }
        mutating func integer(_ value: Int) {
            bytes += [0x8A, 8] + withUnsafeBytes(of: Int64(value).littleEndian) { Array($0) }
        }
        /// The storage '0' of `count` floats.
        mutating func storage(_ count: Int = 4, type: String = "FloatStorage", key: String = "0") {
            add(UInt8(ascii: "("))
            text("storage")
            global("torch", type)
            text(key)
            text("cpu")
            integer(count)
            add(UInt8(ascii: "t"), UInt8(ascii: "Q"))
        }
        mutating func tensor(
            shape: [Int], strides: [Int], offset: Int = 0, type: String = "FloatStorage", key: String = "0"
        ) {
            global("torch._utils", "_rebuild_tensor_v2")
            add(UInt8(ascii: "("))
            storage(type: type, key: key)
            integer(offset)
            for numbers in [shape, strides] {
                add(UInt8(ascii: "("))
                numbers.forEach { integer($0) }
                add(UInt8(ascii: "t"))
            }
            add(0x89, UInt8(ascii: "}"), UInt8(ascii: "t"), UInt8(ascii: "R"))
        }
        /// {"x": what `body` makes}
        static func dictionary(_ body: (inout Pickle) -> Void) -> [UInt8] {
            var pickle = Pickle()
            pickle.add(UInt8(ascii: "}"))
            pickle.text("x")
            body(&pickle)
            pickle.add(UInt8(ascii: "s"), UInt8(ascii: "."))
            return pickle.bytes
        }
    }

    private static let floats = [Float](arrayLiteral: 1, 2, 3, 4).withUnsafeBytes { Array($0) }

    /// Reads a file of the present format around a pickle, with one storage of four floats.
    private func read(_ pickle: [UInt8], storage: [UInt8] = floats) throws -> TorchFile {
        try read(archive: Archive.bytes([("a/data.pkl", pickle), ("a/data/0", storage)]))
    }

    private func read(archive: [UInt8]) throws -> TorchFile {
        try withTemporaryFile("hostile.pt", archive) { try TorchFile($0) }
    }

    private func refusal(_ pickle: [UInt8], sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        try #require(throws: PEFTError.self, sourceLocation: sourceLocation) { try read(pickle) }.problem
    }

    @Test func tensorsMadeByHandAreRead() throws {
        let file = try read(Pickle.dictionary { $0.tensor(shape: [2, 2], strides: [1, 2]) })
        #expect(try file.tensor("x").array(Float.self) == [1, 3, 2, 4])
        let views = try read(Pickle.dictionary { $0.tensor(shape: [3], strides: [1], offset: 1) })
        #expect(try views.tensor("x").array(Float.self) == [2, 3, 4])
        let none = try read(Pickle.dictionary { $0.tensor(shape: [0, 5], strides: [5, 1], offset: 4) })
        #expect(try none.tensor("x").shape == [0, 5])
    }

    private struct Place {
        let shape: [Int]
        let strides: [Int]
        var offset = 0
        static let ones = [Int](repeating: 1, count: 65)
        static let wide = [Int](repeating: 1 << 30, count: 4)
        static let impossible = [
            Place(shape: [5], strides: [1]), Place(shape: [4], strides: [1], offset: 1),
            Place(shape: [2], strides: [4]), Place(shape: [1], strides: [1], offset: 4),
            Place(shape: [1], strides: [1], offset: -1), Place(shape: [-1], strides: [1]),
            Place(shape: [2], strides: [-1]), Place(shape: [1 << 40, 1 << 40], strides: [0, 0]),
            Place(shape: [1 << 40], strides: [1 << 40]), Place(shape: [1 << 41], strides: [0]),
            Place(shape: [1 << 36], strides: [0]), Place(shape: [2, 2], strides: [1]),
            Place(shape: wide, strides: wide), Place(shape: [2], strides: [1], offset: .max),
            Place(shape: [2], strides: [.max]), Place(shape: [.max], strides: [1]), Place(shape: ones, strides: ones),
        ]
    }

    @Test func tensorsThatTheirStorageCannotHoldAreRefused() throws {
        for place in Place.impossible {
            let pickle = Pickle.dictionary { pickle in
                pickle.tensor(shape: place.shape, strides: place.strides, offset: place.offset)
            }
            #expect(throws: PEFTError.self, "\(place)") { try read(pickle) }
        }
    }

    @Test func everythingElseIsRefusedByName() throws {
        for (module, name) in [("os", "system"), ("builtins", "eval"), ("torch.hub", "load"), ("torch", "load")] {
            let problem = try refusal(Pickle.dictionary { $0.global(module, name) })
            #expect(problem.contains("\(module).\(name)") && problem.contains("rejected"))
        }
        #expect(
            try refusal(Pickle.dictionary { $0.tensor(shape: [1], strides: [1], type: "ComplexFloatStorage") })
                .contains("ComplexFloatStorage"))
        // A function is no value that could be called later, and its arguments are not whatever one likes.
        for function in ["_rebuild_tensor_v2", "_rebuild_parameter"] {
            _ = try refusal(
                Pickle.dictionary {
                    $0.global("torch._utils", function)
                    $0.add(UInt8(ascii: ")"), UInt8(ascii: "R"))
                })
        }
        // Instances and reductions by other ways: NEWOBJ, INST, OBJ, NEWOBJ_EX, EXT1, PERSID.
        for code: UInt8 in [0x81, 0x69, 0x6F, 0x92, 0x82, 0x50] {
            #expect(try refusal(Pickle.dictionary { $0.add(code) }).contains("opcode \(code)"))
        }
        #expect(try refusal([0x80, 2, UInt8(ascii: "K"), 7, UInt8(ascii: ".")]).contains("no dictionary"))
        #expect(
            try refusal(Pickle.dictionary { $0.tensor(shape: [1], strides: [1], key: "1") }).contains("storage '1'"))
    }

    /// What would need much memory, a deep stack or forever, and comes in a small file.
    @Test func bombsAreErrors() throws {
        // Tuples in tuples, a million deep, are only many values.
        let deep = Pickle.dictionary { pickle in
            pickle.add(UInt8(ascii: ")"))
            pickle.bytes += [UInt8](repeating: 0x85, count: 1_000_000)
        }
        #expect(try read(deep).entries.isEmpty)
        // A list in itself, and a dictionary.
        #expect(
            try read(
                Pickle.dictionary {
                    $0.add(UInt8(ascii: "]"), UInt8(ascii: "q"), 0, UInt8(ascii: "h"), 0, UInt8(ascii: "a"))
                }
            ).entries.isEmpty)
        _ = try refusal(
            [
                0x80, 2, UInt8(ascii: "}"), UInt8(ascii: "q"), 0, UInt8(ascii: "X"), 1, 0, 0, 0, UInt8(ascii: "x"),
                UInt8(ascii: "h"), 0, UInt8(ascii: "s"), UInt8(ascii: "."),
            ])
        // Dictionaries that hold the one before many times: 100⁸ paths.
        var nested = Pickle()
        nested.add(UInt8(ascii: "}"))
        for level in 0..<7 {
            nested.add(UInt8(ascii: "q"), UInt8(level), UInt8(ascii: "}"))
            for index in 0..<100 {
                nested.text("\(index)")
                nested.add(UInt8(ascii: "h"), UInt8(level), UInt8(ascii: "s"))
            }
        }
        nested.add(UInt8(ascii: "."))
        #expect(try refusal(nested.bytes).contains("nests"))
        // More values than any model has, in 8 MB.
        #expect(try refusal([0x80, 2] + [UInt8](repeating: UInt8(ascii: "N"), count: 8_000_000)).contains("values"))
        // A list of 1,000 pairs, copied into 100 dictionaries.
        var copied = Pickle()
        copied.add(UInt8(ascii: "]"), UInt8(ascii: "q"), 0, UInt8(ascii: "("), 0x88, 0x88, UInt8(ascii: "t"))
        copied.add(UInt8(ascii: "q"), 1, UInt8(ascii: "a"), UInt8(ascii: "("))
        for _ in 0..<1000 { copied.add(UInt8(ascii: "h"), 1) }
        copied.add(UInt8(ascii: "e"))
        for _ in 0..<100 {
            copied.global("collections", "OrderedDict")
            copied.add(UInt8(ascii: "("), UInt8(ascii: "h"), 0, UInt8(ascii: "t"), UInt8(ascii: "R"))
        }
        #expect(try refusal(copied.bytes).contains("damaged"))
        // A name that every tensor beneath repeats.
        let long = Pickle.dictionary { pickle in
            pickle.add(UInt8(ascii: "}"))
            pickle.text(String(repeating: "n", count: 5000))
            pickle.tensor(shape: [1], strides: [1])
            pickle.add(UInt8(ascii: "s"))
        }
        #expect(try refusal(long).contains("name"))
        // Lengths beyond the file.
        for code: [UInt8] in [[0x58, 0xFF, 0xFF, 0xFF, 0xFF], [0x8C, 0xFF], [0x8A, 0xFF], [0x63], [0x95], [0x47]] {
            _ = try refusal([0x80, 2] + code)
        }
        // Stacks without what is asked of them.
        for code in Array(".tuesRQahq") + ["\u{85}", "\u{87}", "\u{93}", "\u{94}", "b"] {
            _ = try refusal([0x80, 2, UInt8(code.unicodeScalars.first?.value ?? 0), UInt8(ascii: ".")])
            _ = try refusal([
                0x80, 2, UInt8(ascii: "("), UInt8(code.unicodeScalars.first?.value ?? 0), UInt8(ascii: "."),
            ])
        }
    }

    // MARK: Archives

    @Test func archivesThatReadersDisagreeOnAreRefused() throws {
        let pickle = Pickle.dictionary { $0.tensor(shape: [4], strides: [1]) }
        let files: [(String, [UInt8])] = [("a/data.pkl", pickle), ("a/data/0", Self.floats)]
        func refused(_ archive: [UInt8], _ word: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
            let error = try #require(throws: PEFTError.self, sourceLocation: sourceLocation) {
                try read(archive: archive)
            }
            #expect(error.problem.contains(word), "\(error.problem)", sourceLocation: sourceLocation)
        }
        #expect(try read(archive: Archive.bytes(files)).tensor("x").array(Float.self) == [1, 2, 3, 4])
        #expect(try read(archive: Archive.bytes(files, isWide: true)).tensor("x").array(Float.self) == [1, 2, 3, 4])
        #expect(try read(archive: Archive.bytes(files, comment: [1, 2, 3])).entries.count == 1)
        try refused(Archive.bytes(files + [files[1]]), "twice")
        try refused(Archive.bytes(files + [("b/data.pkl", pickle)]), "not a torch.save archive")
        try refused(Archive.bytes([files[1]]), "not a torch.save archive")
        try refused(Archive.bytes(files + [("a/byteorder", Array("big".utf8))]), "big-endian")
        try refused(Archive.bytes(files, method: 8), "compressed")
        try refused(Archive.bytes(files, flags: 1), "encrypted")
        try refused(Archive.bytes(files, localName: "b"), "not at the offset in its directory")
        try refused(Archive.bytes(files, sizeChange: 1), "two sizes")
        for shift in [1, -1, 1 << 20, 0xFFFF_0000] { try refused(Archive.bytes(files, offsetChange: shift), "a") }
        for count in [0, 1, 3, 0xFFFF] {
            #expect(throws: PEFTError.self, "\(count)") { try read(archive: Archive.bytes(files, count: count)) }
        }
        try refused(Array("PK\u{3}\u{4}".utf8), "too short")
        try refused(Array("hello".utf8), "not a torch.save file")
        try refused([], "empty")
    }

    // MARK: Damage by chance

    /// Whatever happens to the bytes, the answer is tensors or an error.
    @Test(arguments: ["present.pt", "legacy.pt", "torch.safetensors"]) func mutationsEndInErrors(name: String) throws
    {
        let original = [UInt8](try Data(contentsOf: Self.fixtures.appendingPathComponent(name)))
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("peft-fuzz-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appendingPathComponent("f")
        let environment = ProcessInfo.processInfo.environment
        var random = SeededRandom(seed: environment["PEFT_FUZZ_SEED"].flatMap(UInt64.init) ?? 1)
        var (intact, refused) = (0, 0)
        for _ in 0..<(environment["PEFT_FUZZ_ROUNDS"].flatMap(Int.init) ?? 1500) {
            try Data(mutated(original, &random)).write(to: file)
            do {
                let read: any TensorFile = try name.hasSuffix(".pt") ? TorchFile(file) : SafetensorsFile(file)
                for (key, tensor) in try read.tensors() {
                    #expect(tensor.shape == read.entries[key]?.shape)
                    // Every byte can be read.
                    try withTorchErrors { tensor.withBytes { _ = $0.reduce(0) { $0 &+ UInt64($1) } } }
                }
                intact += 1
            } catch is PEFTError { refused += 1 }
        }
        #expect(intact > 0 && refused > 0, "some damage lies in the elements, some doesn't")
    }
}

/// Zip archives as they should be and as they shouldn't.
private enum Archive {
    private static func little(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    static func bytes(
        _ files: [(String, [UInt8])], method: Int = 0, flags: Int = 0, isWide: Bool = false, comment: [UInt8] = [],
        localName: String? = nil, sizeChange: Int = 0, offsetChange: Int = 0, count: Int? = nil
    ) -> [UInt8] {
        var (out, directory): ([UInt8], [UInt8]) = ([], [])
        for (name, content) in files {
            let start = out.count
            let shown = localName ?? name
            out += [0x50, 0x4B, 3, 4] + little(20, 2) + little(flags, 2) + little(method, 2) + little(0, 8)
            out += little(content.count, 4) + little(content.count, 4) + little(shown.utf8.count, 2) + little(0, 2)
            out += Array(shown.utf8) + content
            directory += [0x50, 0x4B, 1, 2] + little(20, 2) + little(20, 2) + little(flags, 2) + little(method, 2)
            directory += little(0, 8)
            let extra =
                isWide
                ? little(1, 2) + little(24, 2) + little(content.count, 8) + little(content.count, 8)
                    + little(start, 8) : []
            directory += little(isWide ? 0xFFFF_FFFF : content.count, 4)
            directory += little(isWide ? 0xFFFF_FFFF : content.count + sizeChange, 4)
            directory += little(name.utf8.count, 2) + little(extra.count, 2) + little(0, 2) + little(0, 8)
            directory += little(isWide ? 0xFFFF_FFFF : start + offsetChange, 4) + Array(name.utf8) + extra
        }
        let (place, size) = (out.count, directory.count)
        let count = count ?? files.count
        out += directory
        if isWide {
            let end = out.count
            out += [0x50, 0x4B, 6, 6] + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 8)
            out += little(count, 8) + little(count, 8) + little(size, 8) + little(place, 8)
            out += [0x50, 0x4B, 6, 7] + little(0, 4) + little(end, 8) + little(1, 4)
        }
        out +=
            [0x50, 0x4B, 5, 6] + little(0, 4) + little(isWide ? 0xFFFF : count, 2)
            + little(isWide ? 0xFFFF : count, 2)
        out += little(isWide ? 0xFFFF_FFFF : size, 4) + little(isWide ? 0xFFFF_FFFF : place, 4)
        return out + little(comment.count, 2) + comment
    }
}
