import Foundation
import PEFTSupport
import Testing
import Torch

/// Two ranks, each on a thread of its own.
struct PartitionedTensorTests {
    private struct Outcome: Sendable {
        var isIdentical: [Bool] = []
        var ownBytes: [Int] = []
        var problems: [String] = []
        var failure = ""
    }

    @Test func eachRankKeepsItsPart() throws {
        let (socket, port) = try NetworkAddress.listenLocally()
        let results = Results()
        DispatchQueue.concurrentPerform(iterations: 2) { rank in
            var outcome = Outcome()
            do { outcome = try Self.run(rank, socket, port) } catch { outcome.failure = "\(error)" }
            results.add(rank, outcome)
        }
        for rank in 0..<2 {
            let outcome = try #require(results[rank])
            #expect(outcome.failure.isEmpty, "\(outcome.failure)")
            // 1,000 floats, 7 bytes and 33 bf16 values, of which each rank keeps half, rounded up to 64 bytes.
            #expect(outcome.ownBytes == [2048, 64, 64])
            // Once after each gathering.
            #expect(outcome.isIdentical == [true, true, true, true, true, true])
            // Before, between and after them.
            #expect(
                outcome.problems.count == 3
                    && outcome.problems.allSatisfy { $0.contains("are needed outside of their layer") })
        }
    }

    private static func run(_ rank: Int, _ socket: Int32, _ port: Int) throws -> Outcome {
        let store = try KeyValueStore(
            host: "127.0.0.1", port: port, isHost: rank == 0, listeningSocket: rank == 0 ? socket : nil,
            prefix: "test", timeout: .seconds(30))
        let group = try ProcessGroup(
            store.prefixed("parts"), rank: rank, size: 2, interface: .address("127.0.0.1"), timeout: .seconds(30))
        return try withTorchErrors {
            let values = [
                (Tensor.arange(0, 1000) * 0.37).reshaped(20, 50), Tensor([1, 2, 3, 4, 5, 6, 250] as [UInt8]),
                (Tensor.arange(0, 33) * 0.7).to(.bfloat16),
            ]
            var outcome = Outcome()
            let tensors = values.map { $0.clone() }
            // A view shares the bytes.
            let view = tensors[0].T
            let parts = try tensors.map { try PartitionedTensor($0, group) }
            outcome.ownBytes = parts.map(\.ownByteCount)
            func check() {
                do {
                    let sum = try withTorchErrors { (view + 1).sum().item() }
                    outcome.problems.append("\(sum)")
                } catch { outcome.problems.append("\(error)") }
            }
            for _ in 0..<2 {
                check()
                for part in parts { try part.start() }
                for part in parts { try part.wait() }
                outcome.isIdentical += zip(tensors, values).map { $0.isIdentical(to: $1) }
                guard view.isIdentical(to: values[0].T) else { throw PEFTError("the view differs") }
                for part in parts { part.drop() }
            }
            check()
            // Neither leaves before the other has finished.
            _ = try group.sum([1])
            return outcome
        }
    }

    private final class Results: @unchecked Sendable {
        private let lock = NSLock()
        private var values: [Int: Outcome] = [:]
        func add(_ rank: Int, _ result: Outcome) { lock.withLock { values[rank] = result } }
        subscript(rank: Int) -> Outcome? { lock.withLock { values[rank] } }
    }
}
