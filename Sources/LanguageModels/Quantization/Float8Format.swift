import Foundation
import PEFTSupport
import Torch

/// A `quantization_config` of the method `fp8` (DeepSeek-AI 2024, DeepSeek-V3, section 3.3.2): matrices of 8-bit floats
/// e4m3, with a scale for each block of rows and columns in `weight_scale_inv`.
///
/// The matrices are dequantized while they are read, W = scale · q, one at a time, so that they can be stored in any weight
/// format. Activations aren't quantized.
struct Float8Format: Sendable {
    static let method = "fp8"
    /// Rows and columns of a block.
    let block: (rows: Int, columns: Int)

    /// - Returns: `nil` for another method.
    /// - Throws: ``PEFTError`` for unsupported settings.
    init?(_ configuration: JSON) throws {
        guard let json = configuration["quantization_config"], json["quant_method"]?.string == Self.method else {
            return nil
        }
        func wrong(_ key: String, _ remedy: String) -> PEFTError {
            PEFTError(
                "config.json: 'quantization_config.\(key)' is \((json[key] ?? .null).text(indent: nil))",
                remedy: remedy)
        }
        guard json["fmt"]?.string ?? "e4m3" == "e4m3" else { throw wrong("fmt", "use e4m3") }
        let sizes = (json["weight_block_size"]?.array ?? [128, 128]).compactMap(\.int)
        guard sizes.count == 2, sizes.allSatisfy({ (1...1 << 20).contains($0) }) else {
            throw wrong("weight_block_size", "use two sizes above 0, such as [128, 128]")
        }
        block = (sizes[0], sizes[1])
    }

    /// The files' tensors, with those of 8-bit floats dequantized.
    /// - Throws: ``PEFTError`` for a matrix whose scales are missing or don't fit.
    func dequantized(_ owner: [String: any TensorFile]) throws -> [String: any TensorFile] {
        var result = owner
        for (name, file) in owner {
            guard let packed = file as? SafetensorsFile, packed.float8.contains(name) else { continue }
            let scaleName = name + "_scale_inv"
            guard let scales = owner[scaleName], let shape = file.entries[name]?.shape, shape.count == 2,
                let size = scales.entries[scaleName], size.dtype.isFloatingPoint,
                size.shape == [
                    (shape[0] + block.rows - 1) / block.rows, (shape[1] + block.columns - 1) / block.columns,
                ]
            else {
                throw PEFTError(
                    "\(file.url.path) has no scales that fit the 8-bit floats '\(name)' (\(scaleName))",
                    remedy: "use the config.json that belongs to these weights")
            }
            result[name] = Float8Matrix(name, file, scaleName, scales, shape: shape, block: block)
            result[scaleName] = nil
        }
        return result
    }
}

/// One matrix of 8-bit floats, as fp32.
private final class Float8Matrix: TensorFile {
    let entries: [String: TensorEntry]
    var url: URL { codes.file.url }
    private let codes: (name: String, file: any TensorFile)
    private let scales: (name: String, file: any TensorFile)
    private let shape: [Int]
    private let block: (rows: Int, columns: Int)

    init(
        _ name: String, _ file: any TensorFile, _ scaleName: String, _ scales: any TensorFile, shape: [Int],
        block: (rows: Int, columns: Int)
    ) {
        (codes, self.scales, self.shape, self.block) = ((name, file), (scaleName, scales), shape, block)
        entries = [name: TensorEntry(dtype: .float32, shape: shape, byteCount: 4 * shape[0] * shape[1])]
    }

    func tensor(_ name: String) throws -> Tensor {
        let (rows, columns) = (shape[0], shape[1])
        let factors = try scales.file.tensor(scales.name).to(.float32)
        let whole = try codes.file.tensor(codes.name).float8Values
        withoutGradients {
            let places = Tensor((0..<columns).map { $0 / block.columns })
            for (index, start) in stride(from: 0, to: rows, by: block.rows).enumerated() {
                let part = whole.narrowed(axis: 0, start..<min(rows, start + block.rows))
                part.copy(
                    from: part * factors.narrowed(axis: 0, index..<index + 1).selecting(axis: 1, places))
            }
        }
        return whole
    }

    func forget(_ name: String) {
        codes.file.forget(codes.name)
        scales.file.forget(scales.name)
    }
}
