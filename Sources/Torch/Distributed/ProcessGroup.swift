import CTorch
import Foundation
import PEFTSupport

/// A collective operation failed: a connection broke, or the group was canceled.
package struct CollectiveFailure: Error, CustomStringConvertible {
    package let message: String
    package init(message: String) { self.message = message }
    package var description: String { message }
}

func collecting(_ status: Int32) throws {
    if status != 0 { throw CollectiveFailure(message: lastError().problem) }
}

/// Collective operations over processes (c10d's `ProcessGroupGloo`). All ranks call the same ones in the same order, from
/// one thread each; only ``cancel(_:)`` may come from another.
package final class ProcessGroup: @unchecked Sendable {
    let pointer: OpaquePointer
    package let rank: Int
    package let size: Int

    /// Where this process listens for the others.
    package enum Interface: Sendable, Equatable {
        case address(String)
        case named(String)
    }

    /// - Throws: ``PEFTError`` with libtorch's message.
    package init(_ store: KeyValueStore, rank: Int, size: Int, interface: Interface, timeout: Duration) throws {
        let (address, name): (String?, String?) =
            switch interface {
            case .address(let address): (address, nil)
            case .named(let name): (nil, name)
            }
        guard
            let pointer = ct_group_join(
                store.pointer, Int32(clamping: rank), Int32(clamping: size), address, name, timeout.wholeMilliseconds)
        else { throw lastError() }
        (self.pointer, self.rank, self.size) = (pointer, rank, size)
    }

    deinit { ct_group_release(pointer) }

    /// Whether an operation has failed or was canceled. Within a forward or backward pass its error becomes another one's cause.
    package var hasFailed: Bool { ct_group_has_failed(pointer) }

    /// Ends what a thread waits for in this group, now and later, with an error.
    package func cancel(_ message: String) { ct_group_cancel(pointer, message) }

    /// The sums over all ranks.
    /// - Throws: ``CollectiveFailure`` if a rank is gone.
    package func sum(_ values: [Double]) throws -> [Double] {
        try withTorchErrors {
            let tensor = Tensor(values)
            try collecting(ct_group_sum(pointer, tensor.pointer))
            return tensor.array(Double.self)
        }
    }

    /// Overwrites a tensor on all ranks by that of `root`.
    package func broadcast(_ tensor: Tensor, from root: Int = 0) throws {
        try withTorchErrors {
            let host = tensor.detached().to(.cpu).contiguous()
            try collecting(ct_group_broadcast(pointer, host.pointer, Int32(clamping: root)))
            if rank != root { tensor.copy(from: host) }
        }
    }

    /// The bytes of rank 0; other ranks pass anything.
    package func broadcast(_ data: Data) throws -> Data {
        try withTorchErrors {
            let length = Tensor([Int64(data.count)])
            try collecting(ct_group_broadcast(pointer, length.pointer, 0))
            let count = Int(length.array(Int64.self).first ?? 0)
            var result = Data(capacity: count)
            // In pieces, which bounds what is held twice.
            for start in stride(from: 0, to: count, by: 1 << 26) {
                let size = min(1 << 26, count - start)
                let piece =
                    rank == 0
                    ? Tensor(
                        bytes: data.subdata(in: data.startIndex + start..<data.startIndex + start + size),
                        shape: [size], dtype: .uint8)
                    : Tensor.empty([size], dtype: .uint8)
                try collecting(ct_group_broadcast(pointer, piece.pointer, 0))
                if rank != 0 { piece.withBytes { result.append(contentsOf: $0) } }
            }
            return rank == 0 ? data : result
        }
    }
}

/// Sums gradients over all ranks, in buckets that travel while the backward pass goes on.
package final class GradientBuckets {
    private let pointer: OpaquePointer
    private let group: ProcessGroup

    /// - Parameter bucketBytes: the size of a bucket; a larger parameter is a bucket of its own.
    package init(_ parameters: [Tensor], _ group: ProcessGroup, bucketBytes: Int = 4 << 20) throws {
        let pointers: [OpaquePointer?] = parameters.map(\.pointer)
        let made = pointers.withUnsafeBufferPointer {
            ct_gradients_make(group.pointer, $0.baseAddress, Int32($0.count), Int64(bucketBytes))
        }
        withExtendedLifetime(parameters) {}
        guard let made else { throw lastError() }
        (pointer, self.group) = (made, group)
    }

    deinit { ct_gradients_release(pointer) }

    /// Lets the coming backward pass send each bucket when its gradients are complete.
    package func beginSending() { ct_gradients_begin(pointer) }

    /// Replaces the gradients by their sums over all ranks. A parameter without a gradient on all ranks keeps none.
    /// - Returns: the sums of `scalars`.
    /// - Throws: ``CollectiveFailure`` if a rank is gone.
    package func finish(_ scalars: [Double]) throws -> [Double] {
        var scalars = scalars
        try collecting(
            scalars.withUnsafeMutableBufferPointer { ct_gradients_finish(pointer, $0.baseAddress, Int32($0.count)) })
        return scalars
    }
}
