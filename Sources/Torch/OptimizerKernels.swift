import CTorch

/// Optimizer arithmetic over lists of tensors, with libtorch's fused kernels.
package enum OptimizerKernels {
    /// Clips the global gradient norm to at most `largest`; 0 doesn't clip.
    /// - Returns: the norm before clipping.
    package static func clipGradients(_ parameters: [Tensor], to largest: Double) -> Double {
        var norm = 0.0
        withPointers(parameters) { check(ct_clip_gradients($0, $1, largest, &norm)) }
        return norm
    }

    /// One AdamW step (Loshchilov & Hutter 2019, algorithm 2); `step` counts from 1.
    package static func adamW(
        _ parameters: [Tensor], firstMoments: [Tensor], secondMoments: [Tensor], step: Int, learningRate: Double,
        beta1: Double, beta2: Double, weightDecay: Double, epsilon: Double
    ) {
        withPointers(parameters) { values, count in
            withPointers(firstMoments) { first, _ in
                withPointers(secondMoments) { second, _ in
                    check(
                        ct_adamw_step(
                            values, first, second, count, Int64(step), learningRate, beta1, beta2, weightDecay,
                            epsilon))
                }
            }
        }
    }

    /// Approximately the nearest orthogonal matrix to x `[m, n]`, in bf16: `iterations` of the quintic Newton–Schulz
    /// iteration X ← a X + (b X Xᵀ + c (X Xᵀ)²) X from X / ‖X‖ (Jordan et al. 2024).
    package static func orthogonalized(_ x: Tensor, iterations: Int) -> Tensor {
        wrap(ct_orthogonalized(x.pointer, Int32(iterations)))
    }

    /// The 256 values of 8-bit moment codes, signed or unsigned (dynamic quantization; Dettmers et al. 2022, section
    /// 1.2).
    package static func dynamicMap(isSigned: Bool) -> Tensor { wrap(ct_dynamic_map(isSigned)) }

    /// One AdamW step with 8-bit moments (Dettmers et al. 2022): uint8 codes of the parameter's shape, with the
    /// absmax of each block of 256, float32 `[blocks]`; on the CPU, whatever the parameter's device. `step` counts
    /// from 1.
    package static func adamW8bit(
        _ parameter: Tensor, first: (codes: Tensor, largest: Tensor), second: (codes: Tensor, largest: Tensor),
        step: Int, learningRate: Double, beta1: Double, beta2: Double, weightDecay: Double, epsilon: Double
    ) {
        check(
            ct_adamw_8bit_step(
                parameter.pointer, first.codes.pointer, second.codes.pointer, first.largest.pointer,
                second.largest.pointer, Int64(step), learningRate, beta1, beta2, weightDecay, epsilon))
    }

    private static func withPointers(_ tensors: [Tensor], _ body: (UnsafePointer<OpaquePointer?>?, Int32) -> Void) {
        let pointers: [OpaquePointer?] = tensors.map(\.pointer)
        pointers.withUnsafeBufferPointer { body($0.baseAddress, Int32($0.count)) }
        withExtendedLifetime(tensors) {}
    }
}
