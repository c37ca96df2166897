import CTorch

/// Matrix products in a narrow type while what is trained, and what is sensitive to rounding, stays in fp32
/// (Micikevicius et al. 2018); libtorch's autocast.
public enum MixedPrecision {
    /// Runs a forward pass whose matrix products on `device` are computed in `type`; `nil` leaves them as they are.
    /// The backward pass belongs outside: it follows the types that it finds.
    public static func run<Result>(
        _ type: DType?, on device: Device, _ body: () throws -> Result
    ) rethrows -> Result {
        guard let type else { return try body() }
        let scope = ct_autocast_enter(device.raw, type.raw)
        defer { ct_autocast_leave(scope) }
        return try body()
    }
}
