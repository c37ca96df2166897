import Torch

/// Settings of blockwise 4-bit quantization.
package struct BlockQuantization: Sendable, Equatable {
    package var code: BlockCode
    /// Block size: number of values that share a scale.
    package var block: Int
    /// Whether the scales are quantized too (double quantization).
    package var isDouble: Bool

    /// Block sizes that bitsandbytes supports.
    package static let blocks = [32, 64, 128, 256, 512, 1024, 2048, 4096]

    package init(_ code: BlockCode = .nf4, block: Int = 64, isDouble: Bool = false) {
        (self.code, self.block, self.isDouble) = (code, block, isDouble)
    }

    /// Number of blocks of `count` values.
    package func blocks(of count: Int) -> Int { (count + block - 1) / block }

    /// bitsandbytes' `quant_state` of a weight.
    func description(outputs: Int, inputs: Int, offset: Double) -> String {
        let nested =
            isDouble
            ? ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": \(offset)" : ""
        return "{\"quant_type\": \"\(code.rawValue)\", \"blocksize\": \(block), \"dtype\": \"float32\", "
            + "\"shape\": [\(outputs), \(inputs)]\(nested)}"
    }
}
