import PEFTSupport
import Testing
import Torch

@testable import TorchNN

/// What weights say about their formats.
@Suite struct WeightFormatTests {
    /// Names, and whether models are converted to them while they are loaded.
    @Test(arguments: [
        ("fp32", "fp32", true), ("float32", "fp32", true), ("BFloat16", "bf16", true), ("nf4", "nf4", true),
        ("FP4-double", "fp4-double", true), ("int8", "int8", true), ("int8-g64", "int8-g64", true),
        ("INT4", "int4-g128", true), ("int4-gptq", "int4-g128-gptq", false),
    ])
    func names(given: String, canonical: String, isLoading: Bool) throws {
        #expect(try WeightFormat(given).name == canonical)
        if isLoading {
            #expect(try WeightFormat(given, whileLoading: true) == WeightFormat(canonical))
            #expect(WeightFormat.loadingNames.contains(canonical) == !canonical.contains("-g"))
        } else {
            #expect(throws: PEFTError.self) { try WeightFormat(given, whileLoading: true) }
        }
    }

    @Test(arguments: ["", "nf5", "int8-double", "nf4-triple", "fp32-double", "int4-g33", "int5-g32"])
    func unknownNames(name: String) {
        #expect(throws: PEFTError.self) { try WeightFormat(name) }
    }

    @Test func listedFormats() {
        #expect(
            WeightFormat.loadingNames == ["fp32", "stored", "bf16", "nf4", "nf4-double", "fp4", "fp4-double", "int8"])
        #expect(WeightFormat.loadingQuantizers.map(\.name) == ["nf4", "fp4", "int8"])
    }

    /// A format's weights have its name and are quantized if it is.
    @Test(arguments: ["bf16", "nf4", "nf4-double", "fp4", "int8"]) func convertedWeights(name: String) throws {
        try withTorchErrors {
            let format = try WeightFormat(name)
            let dense = TransposedWeight(Tensor.ones([64, 32]))
            let weight = try #require(format.conversion).weight(dense)
            #expect(weight.outputs == 32 && weight.inputs == 64)
            #expect(name.hasPrefix(weight.formatName) && weight.isQuantized == format.isQuantized)
            #expect(weight.precision != .full && weight.denseTensor == nil && !weight.isTransposed)
            let vocabulary = try #require(format.conversion).vocabulary(.ones([32, 64]), .float32)
            #expect(vocabulary?.formatName == weight.formatName)
        }
    }

    /// 16-bit values stay as the files have them, without a copy; others are in fp32.
    @Test func storedFormatKeepsSixteenBits() throws {
        let conversion = try #require(WeightFormat.stored.conversion)
        try withTorchErrors {
            for type in [DType.float16, .bfloat16, .float32, .float64] {
                let values = Tensor.ones([32, 64]).to(type)
                let isKept = type.size == 2
                let weight = conversion.weight(DenseWeight(values))
                #expect(weight.precision == (isKept ? .half : .full))
                let tensor = try #require(weight.parameters.first).parameter.tensor
                #expect(tensor.dtype == (isKept ? type : .float32))
                if isKept { #expect(tensor === values) }
                #expect((conversion.vocabulary(values, .float32) != nil) == isKept)
            }
        }
    }

    /// Group-wise integers are the same as of a loaded model; matrices that don't fill words and groups stay.
    @Test func groupsAreRoundedWhileLoading() throws {
        let conversion = try #require(try WeightFormat("int4-g32").conversion)
        try withTorchErrors {
            let values = Tensor((0..<2048).map { Float(($0 * 37) % 101) / 50 - 1 }, shape: [32, 64])
            let weight = try #require(conversion.weight(DenseWeight(values)) as? GroupQuantizedWeight)
            let settings = GroupQuantization(bits: 4, groupSize: 32)
            let direct = try GroupQuantizedWeight(rounding: values, to: settings)
            #expect(weight.settings == settings)
            for (a, b) in zip(weight.parameters, direct.parameters) {
                #expect(a.parameter.tensor.isIdentical(to: b.parameter.tensor))
            }
            let meta = conversion.weight(DenseWeight(.empty([32, 64], device: .meta)))
            #expect(meta.parameters.map(\.parameter.tensor.shape) == weight.parameters.map(\.parameter.tensor.shape))
            #expect(conversion.weight(DenseWeight(Tensor.ones([32, 48]))).denseTensor != nil)
            #expect(conversion.vocabulary(values, .float32) == nil)
        }
        #expect(try WeightFormat("int4-g32-gptq").conversion == nil)
    }

    @Test func groupsAbsorbDeltas() throws {
        let weight = try GroupQuantizedWeight(
            rounding: .ones([32, 64]), to: GroupQuantization(bits: 4, groupSize: 32))
        #expect(weight.grouped?.groupSize == 32 && weight.isQuantized && !weight.isRoundedByMerging)
        #expect(
            weight.declaration == .gptq(GroupQuantization(bits: 4, groupSize: 32), zeroType: nil, hasOrder: false))
    }
}
