import Torch
import TorchNN

extension LanguageModel {
    /// The model's layers, embedding table and output layer, whose weights processes may divide among them.
    /// - Parameter parameters: those of the model.
    /// - Returns: each part with the paths of its parameters, by the index of the last one.
    func partitionableParts(
        _ parameters: [(path: String, parameter: Parameter)]
    ) -> [Int: (module: Module, paths: [String])] {
        let output = ownOutputLayer
        let modules = namedModules().filter { path, module in
            module is any StackedLayer || path == inputEmbedding || module === output
        }
        return modules.reduce(into: [:]) { parts, entry in
            let indices = parameters.indices.filter { parameters[$0].path.hasPrefix(entry.path + ".") }
            if let last = indices.last { parts[last] = (entry.module, indices.map { parameters[$0].path }) }
        }
    }
}

extension Module {
    /// Replaces weights that files store in another layout than kernels use.
    func useLoadedWeights() {
        for (_, module) in namedModules() {
            if let linear = module as? Linear { linear.weight = linear.weight.loaded() }
            if let site = module as? ExpertLinear { site.weight = site.weight.loaded() }
        }
    }
}
