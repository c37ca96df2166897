import Torch

/// Finds the first layer of a forward pass whose output is NaN or infinite, to say where a run diverged.
package final class LayerProbe: @unchecked Sendable {
    @TaskLocal static var current: LayerProbe?

    private var layers = 0
    /// The number of the first layer with such an output, from 1; 0 for the input of the first layer.
    private var first: Int?

    private init() {}

    /// Runs a forward pass without activation checkpointing.
    /// - Returns: its result, and the first layer with a NaN or infinite output, counted from 1 in forward order; 0 if the
    ///   first layer's input has one, `nil` if no layer's does.
    package static func run<Result>(_ body: () throws -> Result) rethrows -> (Result, layer: Int?) {
        let probe = LayerProbe()
        let result = try $current.withValue(probe, operation: body)
        return (result, probe.first)
    }

    func note(_ x: Tensor, _ y: Tensor) -> Tensor {
        if layers == 0, first == nil, !Self.isFinite(x) { first = 0 }
        layers += 1
        if first == nil, !Self.isFinite(y) { first = layers }
        return y
    }

    /// The absolute maximum is NaN if any value is.
    private static func isFinite(_ x: Tensor) -> Bool { x.count == 0 || x.detached().abs().max().item().isFinite }
}
