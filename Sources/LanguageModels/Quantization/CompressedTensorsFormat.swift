import Foundation
import PEFTSupport
import Torch
import TorchNN

/// A `quantization_config` of the method `compressed-tensors`, as vLLM's LLM Compressor writes it: packed integers
/// (`pack-quantized`), 8-bit integers (`int-quantized`) and 8-bit floats e4m3 (`float-quantized`), with scales for a whole
/// matrix, for each output, for groups of inputs or for blocks.
///
/// Integers stay packed, in the form of ``GroupQuantizedWeight``; floats are dequantized while they are read, W = scale · q,
/// one matrix at a time. Activations aren't quantized.
struct CompressedTensorsFormat: Sendable {
    static let method = "compressed-tensors"
    /// Bits of the integers, by configuration group.
    private let bits: [Int]
    /// Inputs that share a scale in the first of these groups; `nil` for all of them.
    private let groupSize: Int?
    /// Rows and columns of a block of floats.
    private let block: (rows: Int, columns: Int)?

    /// Whether some weights are integers.
    var hasIntegers: Bool { !bits.isEmpty }

    /// - Returns: `nil` for another method.
    /// - Throws: ``PEFTError`` for unsupported settings.
    init?(_ configuration: JSON) throws {
        guard let json = configuration["quantization_config"], json["quant_method"]?.string == Self.method else {
            return nil
        }
        try self.init(settings: json)
    }

    fileprivate init(settings json: JSON) throws {
        func wrong(_ key: String, _ value: JSON?, _ remedy: String) -> PEFTError {
            PEFTError(
                "config.json: 'quantization_config.\(key)' is \((value ?? .null).text(indent: nil))", remedy: remedy)
        }
        let formats = ["pack-quantized", "int-quantized", "float-quantized", "naive-quantized"]
        guard json["quantization_status"]?.string ?? "compressed" == "compressed" else {
            throw wrong("quantization_status", json["quantization_status"], "compress the model when it is saved")
        }
        for key in ["sparsity_config", "transform_config"] {
            guard let value = json[key], ![.null, [:]].contains(value), value["format"] != "dense" else { continue }
            throw wrong(key, value, "use a model without it")
        }
        let whole = json["format"]?.string ?? ""
        guard let groups = json["config_groups"]?.object, !groups.isEmpty else {
            throw wrong("config_groups", json["config_groups"], "use the config.json that belongs to these weights")
        }
        var bits: [Int] = []
        var groupSize: Int?
        var block: (rows: Int, columns: Int)?
        for (name, group) in groups.sorted(by: { $0.key < $1.key }) {
            let format = group["format"]?.string ?? whole
            guard formats.contains(format) else {
                throw wrong(
                    group["format"]?.string == nil ? "format" : "config_groups.\(name).format", .string(format),
                    "use one of \(formats.joined(separator: ", "))")
            }
            guard let weights = group["weights"], weights != .null else { continue }
            let (count, type) = (weights["num_bits"]?.int ?? 8, weights["type"]?.string?.lowercased() ?? "int")
            guard type != "float" || count == 8 else {
                throw wrong("config_groups.\(name).weights.num_bits", weights["num_bits"], "use 8 for floats")
            }
            if type == "float" {
                let sizes = (weights["block_structure"]?.array ?? []).compactMap(\.int)
                if sizes.count == 2, sizes.allSatisfy({ (1...1 << 20).contains($0) }) { block = (sizes[0], sizes[1]) }
                continue
            }
            guard GroupQuantization.supportedBits.contains(count) else {
                throw wrong(
                    "config_groups.\(name).weights.num_bits", weights["num_bits"],
                    "use one of \(GroupQuantization.supportedBits.map(String.init).joined(separator: ", "))")
            }
            if bits.isEmpty, let size = weights["group_size"]?.int, size > 0 { groupSize = size }
            bits.append(count)
        }
        (self.bits, self.groupSize, self.block) = (bits, groupSize, block)
    }

    // MARK: Reading

    /// Tensors beside a weight that computing with it doesn't need, or that its other form contains.
    private static let companions = [
        "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "input_scale", "input_zero_point",
        "output_scale", "output_zero_point",
    ]

    /// The files' tensors with those of quantized weights in the form of the model's.
    ///
    /// - Parameters:
    ///   - packed: whether integers stay packed.
    ///   - table: name of the input embeddings, which are dequantized.
    /// - Throws: ``PEFTError`` for tensors that don't fit together.
    func converted(_ owner: [String: any TensorFile], packed: Bool, table: String?) throws -> [String: any TensorFile]
    {
        var result = owner
        for (name, file) in owner {
            let isPacked = name.hasSuffix(".weight_packed")
            guard isPacked || name.hasSuffix(".weight") else { continue }
            let stem = String(name.dropLast(isPacked ? "weight_packed".count : "weight".count))
            let isFloat = (file as? SafetensorsFile)?.float8.contains(name) == true
            guard isPacked || isFloat || file.entries[name]?.dtype == .int8 else { continue }
            let isTable = table.map { stem == $0 + "." || stem.hasSuffix(".\($0).") } ?? false
            let matrix = try CompressedMatrix(
                stem, owner, isPacked: isPacked, isFloat: isFloat, bits: bits, block: block)
            for part in Self.companions { result[stem + part] = nil }
            result[name] = nil
            for key in matrix.present(packed: packed && !isTable) { result[key] = matrix }
        }
        // Scales of a quantized cache.
        for name in owner.keys where name.hasSuffix(".k_scale") || name.hasSuffix(".v_scale") { result[name] = nil }
        return result
    }

    /// The settings of a packed matrix.
    ///
    /// - Parameter stored: the shapes of its tensors; `nil` without files.
    fileprivate func settings(_ stored: QuantizedFolder.Stored?, inputs: Int, at path: String) throws
        -> GroupQuantization
    {
        guard let stored else {
            return GroupQuantization(bits: bits.first ?? 8, groupSize: groupSize, zeroOffset: 0)
        }
        guard let words = stored("qweight")?.first, let groups = stored("scales")?.first, words > 0, groups > 0,
            words * 32 % inputs == 0, inputs % groups == 0,
            GroupQuantization.supportedBits.contains(words * 32 / inputs)
        else {
            throw PEFTError(
                "'\(path)' has packed tensors that don't match its shape",
                remedy: "use the config.json that belongs to these weights")
        }
        // One group is that of a channel, unless a group has as many inputs.
        let size = inputs / groups
        return GroupQuantization(
            bits: words * 32 / inputs, groupSize: groups == 1 && size != groupSize ? nil : size, zeroOffset: 0)
    }
}

extension QuantizedFolder.Method {
    static let compressedTensors = Self(name: CompressedTensorsFormat.method) { json in
        let format = try CompressedTensorsFormat(settings: json)
        return .init(
            shapes: { outputs, inputs, path, stored in
                let settings = try format.settings(stored, inputs: inputs, at: path)
                if let refusal = settings.refusal(outputs: outputs, inputs: inputs) {
                    throw PEFTError(
                        "'\(path)' can't be quantized to \(settings.bits) bits: \(refusal)",
                        remedy: "use the config.json that belongs to these weights")
                }
                return GroupQuantizedWeight(outputs: outputs, inputs: inputs, settings: settings)
            },
            experts: { experts, outputs, inputs, path in
                let settings = try format.settings(nil, inputs: inputs, at: path)
                if let refusal = settings.refusal(outputs: outputs, inputs: inputs) {
                    throw PEFTError(
                        "'\(path)' can't be quantized to \(settings.bits) bits: \(refusal)",
                        remedy: "load the model with --weights nf4 or fp32")
                }
                return GroupedExperts(experts: experts, outputs: outputs, inputs: inputs, settings: settings)
            })
    }
}

/// One quantized matrix of a folder, as packed integers of ``GroupQuantizedWeight`` or as fp32.
private final class CompressedMatrix: TensorFile {
    private(set) var entries: [String: TensorEntry] = [:]
    let url: URL
    private let stem: String
    private let owner: [String: any TensorFile]
    private let codes: String
    private let kind: Kind
    private let outputs, inputs: Int
    /// `[outputs, groups]`, `[outputs, 1]`, one value, or one for each block.
    private let scaleShape: [Int]
    private let scaleType: DType
    private let block: (rows: Int, columns: Int)?

    private enum Kind: Equatable {
        /// Words of that many bits per value, plus 2^(bits − 1).
        case packed(Int)
        /// One byte per value.
        case bytes
        case float
    }

    /// - Throws: ``PEFTError`` for tensors that are missing or have other shapes.
    init(
        _ stem: String, _ owner: [String: any TensorFile], isPacked: Bool, isFloat: Bool, bits: [Int],
        block: (rows: Int, columns: Int)?
    ) throws {
        (self.stem, self.block) = (stem, block)
        codes = stem + (isPacked ? "weight_packed" : "weight")
        let names = ["weight_packed", "weight", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"]
        self.owner = names.reduce(into: [:]) { $0[stem + $1] = owner[stem + $1] }
        func damaged(_ what: String) -> PEFTError {
            PEFTError("'\(stem)weight' \(what)", remedy: "use the config.json that belongs to these weights")
        }
        guard let file = owner[codes], let entry = file.entries[codes], entry.shape.count == 2,
            entry.shape.allSatisfy({ $0 > 0 }), let scales = owner[stem + "weight_scale"],
            let scale = scales.entries[stem + "weight_scale"], scale.dtype.isFloatingPoint
        else { throw damaged("has no scales ('weight_scale'), or isn't a matrix") }
        (url, scaleShape, scaleType) = (file.url, scale.shape, scale.dtype)
        outputs = entry.shape[0]
        if isPacked {
            guard let shapes = owner[stem + "weight_shape"],
                let shape = try? shapes.tensor(stem + "weight_shape").to(.int64).array(Int64.self), shape.count == 2,
                shape[0] == outputs, shape[1] > 0, shape[1] <= 1 << 32, entry.dtype == .int32
            else { throw damaged("has another shape than 'weight_shape' says") }
            let columns = Int(shape[1])
            // Values of 3 bits cross words.
            let fitting = bits.first { bits in
                (columns * bits + 31) / 32 == entry.shape[1]
                    && (bits != 3 || columns.isMultiple(of: 32) && entry.shape[0].isMultiple(of: 32))
            }
            guard let fitting else {
                throw damaged("has \(entry.shape[1]) words for \(columns) inputs, which no 'num_bits' explains")
            }
            (inputs, kind) = (columns, .packed(fitting))
        } else {
            (inputs, kind) = (entry.shape[1], isFloat ? .float : .bytes)
        }
        guard hasFittingScales else { throw damaged("has scales of another shape, \(scaleShape)") }
        guard hasFittingZeros else { throw damaged("has zero points of another shape") }
        if let order = owner[stem + "weight_g_idx"]?.entries[stem + "weight_g_idx"], order.shape != [inputs] {
            throw damaged("has group indices ('weight_g_idx') of another shape")
        }
    }

    /// Number of groups of the inputs of an output.
    private var groups: Int { scaleShape.count == 2 && !isInBlocks ? scaleShape[1] : 1 }
    private var isInBlocks: Bool {
        kind == .float && scaleShape.count == 2 && (scaleShape[0] != outputs || scaleShape[1] != 1)
    }

    private var hasFittingScales: Bool {
        if scaleShape.reduce(1, *) == 1, scaleShape.count < 2 { return true }
        guard scaleShape.count == 2 else { return false }
        if isInBlocks {
            guard let block else { return false }
            return scaleShape == [
                (outputs + block.rows - 1) / block.rows, (inputs + block.columns - 1) / block.columns,
            ]
        }
        return scaleShape[0] == outputs && scaleShape[1] > 0 && inputs.isMultiple(of: scaleShape[1])
    }

    private var zeroEntry: TensorEntry? {
        owner[stem + "weight_zero_point"]?.entries[stem + "weight_zero_point"]
    }

    private var hasFittingZeros: Bool {
        guard let zero = zeroEntry else { return true }
        if case .packed(let bits) = kind, zero.dtype == .int32 {
            return zero.shape == [(outputs * bits + 31) / 32, groups]
        }
        return zero.shape == scaleShape && kind != .float
    }

    // MARK: Tensors

    /// Bits of packed integers, if the matrix fills whole words.
    private var settings: GroupQuantization? {
        let bits: Int
        switch kind {
        case .packed(let own): bits = own
        case .bytes: bits = 8
        case .float: return nil
        }
        let settings = GroupQuantization(bits: bits, groupSize: groups == 1 ? nil : inputs / groups, zeroOffset: 0)
        return settings.refusal(outputs: outputs, inputs: inputs) == nil ? settings : nil
    }

    /// Presents the matrix as packed integers if it can be, else as fp32.
    /// - Returns: the names of its tensors.
    func present(packed: Bool) -> [String] {
        func add(_ name: String, _ shape: [Int], _ type: DType) {
            entries[stem + name] = TensorEntry(
                dtype: type, shape: shape, byteCount: shape.reduce(1, *) * type.size)
        }
        if packed, let settings {
            add("qweight", [inputs * settings.bits / 32, outputs], .int32)
            add("qzeros", [groups, outputs * settings.bits / 32], .int32)
            add("scales", [groups, outputs], scaleType)
            add("g_idx", [inputs], .int32)
        } else {
            add("weight", [outputs, inputs], .float32)
        }
        return Array(entries.keys)
    }

    func tensor(_ name: String) throws -> Tensor {
        guard entries[name] != nil else { throw PEFTError("\(url.path) has no tensor '\(name)'") }
        return try withoutGradients {
            switch name.dropFirst(stem.count) {
            case "qweight": try packedCodes()
            case "qzeros": try packedZeros()
            case "scales": try spread(stored("weight_scale")).T.contiguous()
            case "g_idx": try order()
            default: try dense()
            }
        }
    }

    private func stored(_ part: String) throws -> Tensor {
        let name = stem + part
        guard let file = owner[name] else { throw PEFTError("\(url.path) has no tensor '\(name)'") }
        return try file.tensor(name)
    }

    /// One value, or one for each output and group, as `[outputs, groups]`.
    private func spread(_ x: Tensor) -> Tensor {
        x.reshaped(x.count == 1 ? [1, 1] : [outputs, groups]).expanded([outputs, groups])
    }

    private func packedCodes() throws -> Tensor {
        guard kind == .bytes else { return try stored("weight_packed").T.contiguous() }
        let codes = try stored("weight")
        let parts = ranges.map { rows in
            (codes.narrowed(axis: 0, rows).to(.float32) + 128).to(.int32).packed(bits: 8, axis: 1)
        }
        return Tensor.concatenated(parts).T.contiguous()
    }

    private func packedZeros() throws -> Tensor {
        let bits = settings?.bits ?? 8
        if zeroEntry?.dtype == .int32, kind != .bytes { return try stored("weight_zero_point").T.contiguous() }
        return try zeros().T.contiguous().to(.int32).packed(bits: bits, axis: 1)
    }

    /// Zero points `[outputs, groups]` of codes from 0.
    private func zeros() throws -> Tensor {
        let bits: Int
        if case .packed(let own) = kind { bits = own } else { bits = 8 }
        let middle = Double(1 << (bits - 1))
        guard let entry = zeroEntry else { return .full([outputs, groups], middle) }
        let stored = try stored("weight_zero_point")
        guard case .packed = kind, entry.dtype == .int32 else { return spread(stored.to(.float32)) + middle }
        return stored.unpacked(bits: bits, axis: 0).narrowed(axis: 0, 0..<outputs).to(.float32)
    }

    /// The group of each input.
    private func order() throws -> Tensor {
        guard owner[stem + "weight_g_idx"] != nil else {
            let size = inputs / groups
            return Tensor((0..<inputs).map { Int32($0 / size) })
        }
        let indices = try stored("weight_g_idx").to(.int64).array(Int64.self)
        // With −1 they were never set.
        if indices.contains(-1) { return Tensor((0..<inputs).map { Int32($0 / (inputs / groups)) }) }
        guard indices.allSatisfy({ (0..<Int64(groups)).contains($0) }) else {
            throw PEFTError(
                "'\(stem)weight_g_idx' has indices outside of \(groups) groups",
                remedy: "the file is damaged; download it again")
        }
        return Tensor(indices.map { Int32($0) })
    }

    /// Rows that are converted at a time, so that temporaries are small.
    private var ranges: [Range<Int>] {
        stride(from: 0, to: outputs, by: 1024).map { $0..<min(outputs, $0 + 1024) }
    }

    /// W = scale · (q − zero).
    private func dense() throws -> Tensor {
        let scales = try stored("weight_scale").to(.float32)
        guard kind != .float else { return try scaled(scales) }
        let (order, zeros, all) = (try order(), try zeros(), spread(scales))
        let stored = try stored(kind == .bytes ? "weight" : "weight_packed")
        let parts = ranges.map { rows -> Tensor in
            var codes = stored.narrowed(axis: 0, rows)
            if case .packed(let bits) = kind {
                codes = codes.unpacked(bits: bits, axis: 1).narrowed(axis: 1, 0..<inputs).to(.float32)
            } else {
                codes = codes.to(.float32) + 128
            }
            func columns(_ x: Tensor) -> Tensor {
                let own = x.narrowed(axis: 0, rows)
                return groups == 1 ? own : own.selecting(axis: 1, order)
            }
            return (codes - columns(zeros)) * columns(all)
        }
        return Tensor.concatenated(parts)
    }

    /// W = scale · q of floats.
    private func scaled(_ scales: Tensor) throws -> Tensor {
        let values = try stored("weight").float8Values
        guard isInBlocks, let block else {
            return values * scales.reshaped(scales.count == 1 ? [1, 1] : [outputs, 1])
        }
        let rows = Tensor((0..<outputs).map { $0 / block.rows })
        let columns = Tensor((0..<inputs).map { $0 / block.columns })
        return values * scales.selecting(axis: 0, rows).selecting(axis: 1, columns)
    }

    func forget(_ name: String) {
        for (name, file) in owner { file.forget(name) }
    }
}
