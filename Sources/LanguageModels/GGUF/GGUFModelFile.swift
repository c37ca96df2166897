import Foundation
import PEFTSupport
import Torch
import TorchNN

/// A GGUF model presented as a file of Hugging Face tensors: names, row order of q and k, and norms are converted.
/// Quantized projections stay packed integers in groups, under the names of ``GroupQuantizedWeight``.
final class GGUFModelFile: TensorFile {
    /// `quant_method` of such a file.
    static let method = "gguf"

    let url: URL
    let entries: [String: TensorEntry]
    /// `config.json`, with a `quantization_config` if projections stay quantized.
    let configuration: JSON
    private let file: GGUFFile
    private let described: GGUFConfiguration
    private let sources: [String: Source]
    /// The most recently packed projection, as its tensors are requested one after another.
    private var last: (name: String, weight: GGUFFile.Packed)?

    private struct Source {
        /// Name of the tensor in the file.
        let name: String
        /// The tensor of a packed projection; `nil` for an unpacked tensor.
        var part: Part?
        /// The tensors of all experts that are one in the model, in the order of its rows.
        var experts: [String] = []
        /// The row of the tensor that is a vector of the model.
        var row: Int?
        /// The form of the tensor, if it isn't the model's.
        var form: (form: GGUFForm, tensors: [String])?
    }

    private enum Part: String, CaseIterable {
        case integers = "qweight"
        case packedZeros = "qzeros"
        case zeros, scales
        case order = "g_idx"
    }

    /// - Parameters:
    ///   - packed: whether projections stay quantized; otherwise all tensors are dequantized.
    ///   - packsOutput: whether that includes the output layer, if it has a matrix of its own.
    init(_ url: URL, packed: Bool, packsOutput: Bool = false) throws {
        self.url = url
        file = try GGUFFile(url)
        described = try GGUFConfiguration(file)
        var entries: [String: TensorEntry] = [:]
        var sources: [String: Source] = [:]
        var isQuantized = false
        for (name, entry) in file.entries where name != "rope_freqs.weight" {
            // A tensor unknown to the family keeps its name, so it is reported as unknown.
            let path = described.names.path(of: name) ?? name
            let experts = described.names.architecture.experts
            if let (form, path, tensors) = described.names.form(ofTensor: name) {
                guard entries[path] == nil, let entry = Self.joined(form, tensors, in: file) else { continue }
                entries[path] = entry
                sources[path] = Source(name: name, form: (form, tensors))
                continue
            }
            if let match = experts?.path(of: name) {
                guard entries[match.path] == nil, let entry = Self.joined(match.tensors, in: file) else { continue }
                entries[match.path] = entry
                sources[match.path] = Source(name: name, experts: match.tensors)
                continue
            }
            if experts?.isRow(name) == true, entry.shape.count == 1 {
                entries[path] = TensorEntry(dtype: entry.dtype, shape: [1] + entry.shape, byteCount: entry.byteCount)
                sources[path] = Source(name: name)
                continue
            }
            if let vectors = described.names.tensors.rows(of: name), entry.shape.count == 2,
                entry.shape[0] <= described.names.heads
            {
                for row in 0..<entry.shape[0] {
                    let path = "\(vectors).\(row).weight"
                    entries[path] = TensorEntry(
                        dtype: entry.dtype, shape: [entry.shape[1]], byteCount: entry.shape[1] * entry.dtype.size)
                    sources[path] = Source(name: name, row: row)
                }
                continue
            }
            if packed, experts?.isRouter(name) != true, path.hasSuffix(".weight"), entry.shape.count == 2,
                path.hasPrefix(described.names.tensors.layers) || packsOutput && name == GGUFFormat.outputTensor,
                let type = file.type(of: name), type.plain == nil,
                case let settings = GroupQuantization(bits: type.packedBits, groupSize: type.group),
                settings.refusal(outputs: entry.shape[0], inputs: entry.shape[1]) == nil
            {
                isQuantized = true
                let stem = path.dropLast("weight".count)
                let shapes = Self.shapes(type, outputs: entry.shape[0], inputs: entry.shape[1])
                for (part, shape, dtype) in shapes {
                    entries[stem + part.rawValue] = TensorEntry(
                        dtype: dtype, shape: shape, byteCount: shape.reduce(1, *) * dtype.size)
                    sources[stem + part.rawValue] = Source(name: name, part: part)
                }
                continue
            }
            entries[path] = entry
            sources[path] = Source(name: name)
        }
        (self.entries, self.sources) = (entries, sources)
        var fields = described.json.object ?? [:]
        if isQuantized { fields["quantization_config"] = ["quant_method": .string(Self.method)] }
        configuration = .object(fields)
    }

    /// The entry of a model's tensor of all experts, whose rows are those of several of the file's; `nil` if one is missing or
    /// has another shape, so that loading reports the model's tensor as missing.
    private static func joined(_ tensors: [String], in file: GGUFFile) -> TensorEntry? {
        let parts = tensors.compactMap { file.entries[$0] }
        guard let first = parts.first, parts.count == tensors.count, first.shape.count == 3, first.hasUsualSizes,
            parts.allSatisfy({ $0.shape == first.shape })
        else { return nil }
        let shape = [first.shape[0], first.shape[1] * parts.count, first.shape[2]]
        return TensorEntry(
            dtype: .float32, shape: shape, byteCount: shape.reduce(1, *) * DType.float32.size)
    }

    /// The entry of a model's tensor that has another form; `nil` if a tensor is missing or has another shape, so that loading
    /// reports the model's tensor as missing.
    private static func joined(_ form: GGUFForm, _ tensors: [String], in file: GGUFFile) -> TensorEntry? {
        let parts = tensors.compactMap { file.entries[$0] }
        guard parts.count == tensors.count,
            parts.allSatisfy({ $0.shape.count == form.axes ?? $0.shape.count && $0.hasUsualSizes }),
            let shape = try? withTorchErrors({ form.join(parts.map { .empty($0.shape, device: .meta) }).shape })
        else { return nil }
        return TensorEntry(dtype: .float32, shape: shape, byteCount: shape.reduce(1, *) * DType.float32.size)
    }

    private static func shapes(_ type: GGUFType, outputs: Int, inputs: Int) -> [(Part, [Int], DType)] {
        let (groups, bits) = (inputs / type.group, type.packedBits)
        return [
            (.integers, [inputs * bits / 32, outputs], .int32),
            (.packedZeros, [groups, outputs * bits / 32], .int32),
            (.scales, [groups, outputs], type.scaleType), (.order, [inputs], .int32),
        ] + (type.hasMinimum ? [(.zeros, [groups, outputs], .float32)] : [])
    }

    func tensor(_ name: String) throws -> Tensor {
        guard let source = sources[name], let entry = entries[name] else {
            let hint = nearestName(to: name, in: entries.keys).map { "did you mean '\($0)'?" }
            throw PEFTError("\(url.path) has no tensor '\(name)'", remedy: hint)
        }
        if let (form, tensors) = source.form {
            return form.join(try tensors.map { try file.tensor($0).to(.float32) })
        }
        if let part = source.part { return try packed(source.name, part, entry, path: name) }
        if !source.experts.isEmpty {
            let parts = try source.experts.map { try file.tensor($0).to(.float32) }
            return parts.count == 1 ? parts[0] : Tensor.concatenated(parts, axis: 1)
        }
        let tensor = try file.tensor(source.name)
        if let row = source.row { return tensor.narrowed(axis: 0, row..<row + 1).reshaped(entry.shape) }
        if described.names.architecture.addsOneToNorms, name.hasSuffix("norm.weight") {
            return tensor.to(.float32) - 1
        }
        return try described.names.own(tensor, at: name).reshaped(entry.shape)
    }

    private func packed(_ name: String, _ part: Part, _ entry: TensorEntry, path: String) throws -> Tensor {
        let type = file.type(of: name) ?? .f32
        switch part {
        case .order: return Tensor((0..<entry.shape[0]).map { Int32($0 / type.group) })
        case .packedZeros:
            // The zero point less 1 at all positions, as in GPTQ's first format.
            let one = UInt32(max(1, type.zero) - 1)
            let word = (0..<(32 / type.packedBits)).reduce(UInt32(0)) { $0 | one << UInt32($1 * type.packedBits) }
            return .full(entry.shape, Double(Int32(bitPattern: word)), dtype: .int32)
        case .integers, .scales, .zeros:
            if last?.name != name {
                let rows = file.entries[name]?.shape.first ?? 0
                last = (name, try file.packed(name, rowOrder: described.names.storedRows(path, rows: rows)))
                file.forget(name)
            }
            guard let weight = last?.weight else { throw PEFTError("\(url.path) has no tensor '\(name)'") }
            return part == .integers
                ? weight.integers : part == .scales ? weight.scales : weight.zeros ?? weight.scales
        }
    }

    func forget(_ name: String) {
        if let source = sources[name] { file.forget(source.name) }
    }

    /// Empty weights for projections whose packed integers the file contains, to be filled from it.
    static var scheme: QuantizedFolder.Scheme {
        QuantizedFolder.Scheme { outputs, inputs, path, stored in
            guard let words = stored?("qweight")?.first, let groups = stored?("scales")?.first, words > 0, groups > 0,
                words * 32 % inputs == 0, inputs % groups == 0
            else {
                throw PEFTError(
                    "'\(path)' has packed tensors that don't match its shape", remedy: "download the file again")
            }
            return GroupQuantizedWeight(
                outputs: outputs, inputs: inputs,
                settings: GroupQuantization(bits: words * 32 / inputs, groupSize: inputs / groups),
                zeroType: stored?("zeros") == nil ? nil : .float32)
        }
    }
}

extension TensorEntry {
    /// Whether no size is zero, so that the others are bounded by the file's size.
    fileprivate var hasUsualSizes: Bool { shape.allSatisfy { $0 > 0 } }
}

extension QuantizedFolder.Method {
    static let gguf = Self(name: GGUFModelFile.method) { _ in GGUFModelFile.scheme }
}

extension ModelFolder {
    /// The GGUF file at a path: the path itself, or the only GGUF file in a folder without `config.json`.
    /// - Throws: ``PEFTError`` if there are several.
    static func ggufFile(at url: URL) throws -> URL? {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else { return nil }
        guard isFolder.boolValue else { return GGUFHeader.isName(url) ? url : nil }
        guard !FileManager.default.fileExists(atPath: url.appendingPathComponent("config.json").path) else {
            return nil
        }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []
        let files = names.sorted().map { url.appendingPathComponent($0) }.filter(GGUFHeader.isName)
        guard files.count <= 1 else {
            throw PEFTError(
                "\(url.path) contains \(files.count) GGUF files",
                remedy: "pass one of them, such as \(files[0].path)")
        }
        return files.first
    }
}
