import CTorch

/// Mixed precision (Micikevicius et al. 2018) with libtorch's autocast: matmuls run in half precision, while trained
/// parameters and precision-sensitive operations stay in fp32.
package enum MixedPrecision {
    /// Runs a forward pass whose matmuls on `device` are computed in `type`; `nil` leaves them unchanged. Run the
    /// backward pass outside: it uses the dtypes of the forward pass.
    package static func run<Result>(
        _ type: DType?, on device: Device, _ body: () throws -> Result
    ) rethrows -> Result {
        guard let type else { return try body() }
        let scope = ct_autocast_enter(device.raw, type.raw)
        defer { ct_autocast_leave(scope) }
        return try body()
    }

    /// Runs operations on `device` that compute in the dtypes of their inputs, whatever scope they are in.
    package static func suspended<Result>(on device: Device, _ body: () throws -> Result) rethrows -> Result {
        let scope = ct_autocast_suspend(device.raw)
        defer { ct_autocast_leave(scope) }
        return try body()
    }
}
