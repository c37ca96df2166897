import LanguageModels
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

/// Bases in bf16: what is trained stays in fp32, and learns in the same direction as over an fp32 base.
@Suite struct HalfPrecisionTests {
    /// Loss and the gradients of all that is trained, by name.
    private func step(_ method: any PEFTMethod.Type, _ base: String, _ dtype: DType) throws -> (
        Double, [Tensor], Adapter
    ) {
        let model = try Models.load(base, dtype: dtype)
        var choice = MethodChoice.forTests(method, on: base)
        // With updates as large as these two begin with, PyTorch's bf16 gradients turn away too: under autocast, with 8 seeds,
        // cosines of DeLoRA's are 0.73 to 0.98 at λ = 15 and 0.99 at 1, of FourierFT's 0.93 to 0.996 at 30 and 0.98 at 10.
        if method.name == "delora" { try choice.set("lambda", to: "1") }
        if method.name == "fourierft" { try choice.set("scaling", to: "10") }
        let adapter = try Adapter(choice, on: model, seed: 3)
        // Away from the beginning, where many gradients are zero.
        var random = SeededRandom(seed: 5)
        for parameter in adapter.parameters {
            let noise = Tensor.empty(parameter.tensor.shape, dtype: parameter.tensor.dtype)
            noise.fillNormal(deviation: 0.02, from: &random)
            parameter.tensor.detached().add(noise)
        }
        let batch = model.batch(Models.rows(for: model), device: .cpu)
        let loss = try withTorchErrors {
            let loss = model.computing { model.lossSum(batch, labelSmoothing: 0) }
            loss.backward()
            return loss.item()
        }
        return (loss, adapter.parameters.map { $0.tensor.grad ?? .zeros(like: $0.tensor) }, adapter)
    }

    /// Of the T5 fixtures, `t5-tied-gated` is one whose gradients bf16 keeps. Those of `t5-v1.1` turn away in PyTorch too: under
    /// autocast, with 12 seeds, cosines of LoRA's are 0.93 to 0.99 and of a soft prompt's 0.86 to 0.995.
    @Test(arguments: PEFTMethods.builtIn.map { $0.name }, ["t5-tied-gated", "llama", "bert:classification"])
    func everyMethodTrains(name: String, base: String) throws {
        let method = try PEFTMethods.named(name)
        guard try fits(.forTests(method, on: base), base) else { return }
        let (loss, wide, _) = try step(method, base, .float32)
        let (found, narrow, adapter) = try step(method, base, .bfloat16)
        // The smallest singular vectors of a rounded weight are others.
        guard name != "mica" else { return #expect(found.isFinite) }
        #expect(abs(found - loss) < 0.03 * abs(loss), "\(found) against \(loss)")
        #expect(adapter.parameters.allSatisfy { $0.tensor.dtype == .float32 })
        // What begins with a decomposition of the weight begins elsewhere when the weight is rounded.
        guard !["pissa", "olora", "loftq"].contains(name) else { return }
        guard !["frod", "osf", "psoft", "supertuning", "tinylora"].contains(name) else { return }
        var (product, a, b) = (0.0, 0.0, 0.0)
        for (x, y) in zip(wide, narrow) {
            let (x, y) = (x.to(.float64), y.to(.float64))
            product += (x * y).sum().item()
            a += x.squared().sum().item()
            b += y.squared().sum().item()
        }
        if name == "cartridge", base == "t5-tied-gated" {
            // Intermittent, as processors round bf16 products differently.
            withKnownIssue(
                "0.966 on AVX2; prefix tuning, whose values begin alike, holds the limit", isIntermittent: true
            ) {
                #expect(product > 0.97 * (a * b).squareRoot())
            }
            return
        }
        #expect(product > 0.97 * (a * b).squareRoot(), "cosine \(product / (a * b).squareRoot())")
    }

    @Test func theBaseKeepsItsBits() throws {
        let model = try Models.load("llama", dtype: .bfloat16)
        let before = model.parameters().map { ($0.path, $0.parameter.tensor.clone()) }
        let adapter = try Adapter(.forTests(LoRA.self), on: model)
        let batch = model.batch(Models.rows, device: .cpu)
        try withTorchErrors {
            model.computing { model.lossSum(batch, labelSmoothing: 0) }.backward()
        }
        #expect(adapter.parameters.allSatisfy { $0.tensor.grad != nil })
        let after = Dictionary(uniqueKeysWithValues: model.parameters().map { ($0.path, $0.parameter.tensor) })
        for (path, tensor) in before { #expect(after[path]?.isIdentical(to: tensor) == true, "\(path)") }
    }
}
