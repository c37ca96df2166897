import Foundation
import PEFTSupport

/// A TensorBoard event file: framed records, each a `tensorflow.Event` message.
///
/// Record: length (8 bytes), its masked CRC-32C, the message, and the masked CRC-32C of that. The fields written here are
/// `Event` {1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log}, `Summary` {1 value}, `Summary.Value` {1 tag,
/// 2 simple_value} and `SessionLog` {1 status}.
struct EventFile {
    private let file: AppendedFile

    /// Creates the file.
    /// - Parameters:
    ///   - step: the first step of a resumed run. Readers drop what earlier files say about it and later steps.
    init(in folder: URL, time: Double, resumingAt step: Int? = nil) throws {
        var name = "events.out.tfevents.\(Int(time)).swift-peft.\(getpid())"
        // A run that is resumed within the same second by the same process.
        if FileManager.default.fileExists(atPath: folder.appendingPathComponent(name).path) {
            name += ".\(step ?? 0)"
        }
        file = try AppendedFile(folder.appendingPathComponent(name))
        var first = ProtobufMessage()
        first.add(1, time)
        first.add(3, "brain.Event:2")
        try append(first)
        guard let step else { return }
        let start: UInt64 = 1
        var log = ProtobufMessage()
        log.add(1, start)
        var event = ProtobufMessage()
        event.add(1, time)
        event.add(2, UInt64(step))
        event.add(7, log)
        try append(event)
    }

    /// Appends one value for each tag.
    func append(_ scalars: [(tag: String, value: Double)], step: Int, time: Double) throws {
        var summary = ProtobufMessage()
        for scalar in scalars {
            var value = ProtobufMessage()
            value.add(1, scalar.tag)
            value.add(2, Float(scalar.value))
            summary.add(1, value)
        }
        var event = ProtobufMessage()
        event.add(1, time)
        event.add(2, UInt64(max(0, step)))
        event.add(5, summary)
        try append(event)
    }

    private func append(_ event: ProtobufMessage) throws {
        let length = ProtobufMessage.littleEndian(UInt64(event.bytes.count))
        try file.append(
            length + ProtobufMessage.littleEndian(CRC32C.masked(length)) + event.bytes
                + ProtobufMessage.littleEndian(CRC32C.masked(event.bytes)))
    }
}

/// Encodes the fields of one Protocol Buffers message: https://protobuf.dev/programming-guides/encoding/
struct ProtobufMessage {
    private(set) var bytes: [UInt8] = []

    /// Field numbers and lengths: seven bits a byte, lowest first; the eighth says that more follow.
    private mutating func addVariable(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    private mutating func addKey(_ field: Int, wireType: UInt64) { addVariable(UInt64(field) << 3 | wireType) }

    mutating func add(_ field: Int, _ value: UInt64) {
        addKey(field, wireType: 0)
        addVariable(value)
    }

    mutating func add(_ field: Int, _ value: Double) {
        addKey(field, wireType: 1)
        bytes += Self.littleEndian(value.bitPattern)
    }

    mutating func add(_ field: Int, _ value: Float) {
        addKey(field, wireType: 5)
        bytes += Self.littleEndian(value.bitPattern)
    }

    mutating func add(_ field: Int, _ value: String) { add(field, Array(value.utf8)) }
    mutating func add(_ field: Int, _ message: ProtobufMessage) { add(field, message.bytes) }

    private mutating func add(_ field: Int, _ value: [UInt8]) {
        addKey(field, wireType: 2)
        addVariable(UInt64(value.count))
        bytes += value
    }

    static func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }
}
