import PEFTSupport
import TorchNN

extension QuantizedFolder.Method {
    /// `mxfp4` (gpt-oss): the experts alone are packed.
    static let mxfp4 = QuantizedFolder.Method(
        name: "mxfp4",
        scheme: { _ in
            QuantizedFolder.Scheme(
                shapes: { outputs, inputs, path, _ in
                    throw PEFTError(
                        "'\(path)' is a projection of \(inputs) inputs and \(outputs) outputs, which mxfp4 doesn't quantize",
                        remedy: "use a model whose experts alone are quantized")
                },
                experts: { experts, outputs, inputs, _ in
                    try MXFP4Experts(experts: experts, outputs: outputs, inputs: inputs)
                }, isForExpertsOnly: true)
        })
}
