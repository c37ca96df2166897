import Foundation
import PEFTSupport
import Torch
import TorchNN

/// A dense layer over pooled embeddings, y = f(W x + b): sentence-transformers' `Dense` (EmbeddingGemma has two). It is part of
/// the folder and never trained.
struct PooledDense: @unchecked Sendable {
    /// `[outputs, inputs]`
    let weight: Tensor
    /// `[outputs]`
    let bias: Tensor?
    private let activation: Function

    /// The functions, by the names of PyTorch's classes.
    private enum Function: String, CaseIterable {
        case identity = "torch.nn.modules.linear.Identity"
        case tanh = "torch.nn.modules.activation.Tanh"
        case sigmoid = "torch.nn.modules.activation.Sigmoid"
        case relu = "torch.nn.modules.activation.ReLU"
        case gelu = "torch.nn.modules.activation.GELU"
        case silu = "torch.nn.modules.activation.SiLU"

        func callAsFunction(_ x: Tensor) -> Tensor {
            switch self {
            case .identity: x
            case .tanh: x.tanh()
            case .sigmoid: x.sigmoid()
            case .relu: Activation.relu(x)
            case .gelu: Activation.gelu(x)
            case .silu: Activation.silu(x)
            }
        }
    }

    /// The layers that `modules.json` lists.
    /// - Throws: ``PEFTError`` for a damaged layer, or sizes that don't fit.
    static func read(in folder: URL) throws -> [PooledDense] {
        var layers: [PooledDense] = []
        for module in try SentenceModules.read(in: folder) where module.kind == .dense {
            let layer = try PooledDense(module.folder)
            if let last = layers.last, last.weight.dim(0) != layer.weight.dim(1) {
                throw PEFTError(
                    "\(module.folder.path) has \(layer.weight.dim(1)) inputs, but the layer before it has"
                        + " \(last.weight.dim(0)) outputs",
                    remedy: "download the folder again")
            }
            layers.append(layer)
        }
        return layers
    }

    private init(_ folder: URL) throws {
        let file = folder.appendingPathComponent("config.json")
        let json = try JSON.read(file)
        let name = json["activation_function"]?.string ?? Function.tanh.rawValue
        guard let function = Function(rawValue: name) else {
            throw PEFTError(
                "\(file.path): 'activation_function' is '\(name)', which is not supported",
                remedy: "use one of \(Function.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        for key in ["module_input_name", "module_output_name"] {
            if let value = json[key], value != .null, value != "sentence_embedding" {
                throw PEFTError(
                    "\(file.path): '\(key)' is \(value.text(indent: nil)), which is not supported",
                    remedy: "use a layer of sentence embeddings")
            }
        }
        let weights = folder.appendingPathComponent("model.safetensors")
        let isSafe = FileManager.default.fileExists(atPath: weights.path)
        let pickle = folder.appendingPathComponent("pytorch_model.bin")
        let tensors: any TensorFile = try isSafe ? SafetensorsFile(weights) : TorchFile(pickle)
        activation = function
        weight = try tensors.tensor("linear.weight").to(.float32)
        bias = tensors.entries["linear.bias"] == nil ? nil : try tensors.tensor("linear.bias").to(.float32)
        guard weight.shape.count == 2, weight.dim(0) == json["out_features"]?.int,
            weight.dim(1) == json["in_features"]?.int, bias.map({ $0.shape == [weight.dim(0)] }) ?? true
        else {
            throw PEFTError(
                "\(folder.path): the weight of shape \(weight.shape) isn't that of \(file.path)",
                remedy: "download the folder again")
        }
    }

    /// `[rows, inputs]` -> `[rows, outputs]`.
    func callAsFunction(_ x: Tensor) -> Tensor {
        let own = bias?.to(x.dtype).to(x.device)
        return activation(Functions.linear(x, weight.to(x.dtype).to(x.device), bias: own))
    }

    /// Writes the files of the layer into a new folder.
    func write(into folder: URL) throws {
        let json: JSON = [
            "in_features": .integer(weight.dim(1)), "out_features": .integer(weight.dim(0)),
            "bias": .bool(bias != nil), "activation_function": .string(activation.rawValue),
        ]
        try AtomicFile.write(json.text() + "\n", to: folder.appendingPathComponent("config.json"))
        var tensors = ["linear.weight": weight]
        tensors["linear.bias"] = bias
        try withTorchErrors {
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: folder.appendingPathComponent("model.safetensors"))
        }
    }
}

/// The modules of a sentence-transformers folder (`modules.json`), in their order.
enum SentenceModules {
    enum Kind: String {
        case transformer = "Transformer", pooling = "Pooling", dense = "Dense", normalize = "Normalize"
    }

    static func isThere(in folder: URL) -> Bool {
        FileManager.default.fileExists(atPath: file(in: folder).path)
    }

    private static func file(in folder: URL) -> URL { folder.appendingPathComponent("modules.json") }

    /// - Throws: ``PEFTError`` for modules of other types or in another order.
    static func read(in folder: URL) throws -> [(kind: Kind, folder: URL)] {
        guard isThere(in: folder) else { return [] }
        let file = file(in: folder)
        let modules = try (JSON.read(file).array ?? []).map { module -> (kind: Kind, folder: URL) in
            let type = module["type"]?.string ?? ""
            guard let kind = Kind(rawValue: type.split(separator: ".").last.map(String.init) ?? type) else {
                throw PEFTError(
                    "\(file.path) has a module of type '\(type)', which is not supported",
                    remedy: "supported types are Transformer, Pooling, Dense and Normalize")
            }
            let path = module["path"]?.string ?? (kind == .pooling ? "1_Pooling" : "")
            guard !path.hasPrefix("/"), !path.contains("..") else {
                throw PEFTError(
                    "\(file.path) has the path '\(path)' outside its folder",
                    remedy: "use a path inside the folder")
            }
            return (kind, folder.appendingPathComponent(path))
        }
        let order: [Kind] = [.transformer, .pooling, .dense, .normalize]
        let places = modules.map { module in order.firstIndex(of: module.kind) ?? 0 }
        guard places == places.sorted() else {
            throw PEFTError(
                "\(file.path) has the modules \(modules.map(\.kind.rawValue).joined(separator: ", ")) in an order that is"
                    + " not supported",
                remedy: "the order must be Transformer, Pooling, Dense, Normalize")
        }
        return modules
    }
}
