import Foundation
import PEFTSupport
import Testing
import Torch

@testable import PEFTDistributed

/// Two ranks, each on a thread of its own: the layout of c10d's classes is that of the linked libtorch.
struct ProcessGroupTests {
    private struct Outcome: Sendable {
        var gradients: [[Float]?] = []
        var scalars: [Double] = []
        var bytes = Data()
        var failure = ""
    }

    @Test func ranksSumGradientsAndShareBytes() throws {
        let (socket, port) = try NetworkAddress.listenLocally()
        let results = Mutexed<[Outcome?]>([nil, nil])
        DispatchQueue.concurrentPerform(iterations: 2) { rank in
            var outcome = Outcome()
            do { outcome = try Self.run(rank, socket, port) } catch { outcome.failure = "\(error)" }
            results.change { $0[rank] = outcome }
        }
        for outcome in results.value {
            let outcome = try #require(outcome)
            #expect(outcome.failure.isEmpty, "\(outcome.failure)")
            // Rank r's input is r + 1, so the gradient of w is 1 + 2; only rank 1 uses b; nobody uses c.
            #expect(outcome.gradients == [[3, 3, 3], [1], nil])
            #expect(outcome.scalars == [1 / 3.0 + 2 / 3.0, 7])
            #expect(outcome.bytes == Data("from rank 0".utf8))
        }
    }

    private static func run(_ rank: Int, _ socket: Int32, _ port: Int) throws -> Outcome {
        let store = try KeyValueStore(
            host: "127.0.0.1", port: port, isHost: rank == 0, listeningSocket: rank == 0 ? socket : nil,
            prefix: "test", timeout: .seconds(30))
        let group = try ProcessGroup(
            store, rank: rank, size: 2, interface: .address("127.0.0.1"), timeout: .seconds(30))
        return try withTorchErrors {
            let tensors = [Tensor.ones([3]), Tensor.ones([1]), Tensor.ones([2])]
            for tensor in tensors { tensor.requiresGrad = true }
            let buckets = try GradientBuckets(tensors, group, bucketBytes: 8)
            buckets.beginSending()
            let sum = (tensors[0] * Double(rank + 1)).sum()
            (rank == 1 ? sum + tensors[1].sum() : sum).backward()
            var outcome = Outcome()
            outcome.scalars = try buckets.finish([Double(rank + 1) / 3, Double(3 + rank)])
            outcome.gradients = tensors.map { $0.grad?.array(Float.self) }
            outcome.bytes = try group.broadcast(Data(rank == 0 ? "from rank 0".utf8 : "other".utf8))
            // Neither leaves before the other has finished.
            _ = try group.sum([1])
            return outcome
        }
    }

    /// A value behind a lock.
    private final class Mutexed<Value>: @unchecked Sendable {
        private let lock = NSLock()
        private(set) var value: Value
        init(_ value: Value) { self.value = value }
        func change(_ body: (inout Value) -> Void) { lock.withLock { body(&value) } }
    }
}
