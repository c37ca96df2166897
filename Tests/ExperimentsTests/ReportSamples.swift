@testable import Experiments

/// Reports with known figures.
enum ReportSamples {
    static func report(_ runs: [MethodRun]) -> ComparisonReport {
        ComparisonReport(
            version: "1.0", date: "2026-01-31T12:00:00Z",
            model: .init(name: "Tiny T5", family: "t5", parameters: 251_000_000, bytes: 1_004_000_000),
            data: .init(
                name: "Dialogues", trainingRows: 12_460, validationRows: 500, testRows: 1_500,
                prompt: "Summarize.\n\n{dialogue}", target: "{summary}"),
            machine: .init(processor: "Some CPU", threads: 2, memoryBytes: 8_000_000_000, system: "Linux"),
            settings: ["epochs": 1, "optimizer": "AdamW", "weightDecay": 0.01], primaryMetric: "rouge1", runs: runs)
    }

    static func run(
        _ method: String, _ label: String, rouge1: [Double], half: Double? = nil, trainable: Int = 0,
        tokensPerSecond: Double? = nil, peak: Int? = nil, file: Int? = nil
    ) -> MethodRun {
        var run = MethodRun(method: method, label: label)
        let first = rouge1.first ?? .nan
        for (key, scale) in [("rouge1", 1.0), ("rouge2", 0.4), ("rougeL", 0.8)] {
            run.quality[key] = Statistic(
                rouge1.map { $0 * scale }, low: half.map { first * scale - $0 }, high: half.map { first * scale + $0 }
            )
        }
        run.trainable = trainable
        run.total = 251_000_000
        run.share = Double(trainable) / 251_000_000
        run.tokensPerSecond = tokensPerSecond
        run.peakBytes = peak
        run.adapterBytes = file
        return run
    }

    /// Base, full fine-tuning and LoRA with one seed; `lora` sets how far LoRA is from full's 0.42.
    static func oneSeed(lora: Double = 0.41) -> ComparisonReport {
        var adapter = run(
            "lora", "LoRA r 32", rouge1: [lora], half: 0.015, trainable: 3_538_944, tokensPerSecond: 1800,
            peak: 2_000_000_000, file: 14_200_000)
        adapter.configuration = ["r": 32, "target_modules": ["q", "v"]]
        adapter.learningRate = 2e-4
        adapter.learningRateSearch = [
            .init(learningRate: 1e-4, validationLoss: 1.4), .init(learningRate: 2e-4, validationLoss: 1.3),
            .init(learningRate: 4e-4, validationLoss: 1.5),
        ]
        adapter.inference = .init(unmerged: 13, merged: 11, largestDifference: 2e-5)
        adapter.curves = [curve(seed: 0, steps: 300)]
        adapter.samples = [.init(prompt: "Hello there", target: "Greeting", output: "A greeting")]
        return report([
            run("base", "Base model", rouge1: [0.2], half: 0.015, peak: 1_500_000_000),
            run(
                "full", "Full fine-tuning", rouge1: [0.42], half: 0.015, trainable: 251_000_000,
                tokensPerSecond: 1000,
                peak: 4_000_000_000, file: 1_004_000_000), adapter,
        ])
    }

    /// Three seeds; DoRA can't be told from LoRA, IA³ is clearly behind with few parameters.
    static func threeSeeds() -> ComparisonReport {
        var report = report([
            run("base", "Base model", rouge1: [0.2]),
            run("full", "Full fine-tuning", rouge1: [0.419, 0.42, 0.421], trainable: 251_000_000),
            run("lora", "LoRA r 32 (all linears)", rouge1: [0.395, 0.4, 0.405], trainable: 3_538_944),
            run("dora", "DoRA r 32 (all linears)", rouge1: [0.394, 0.399, 0.404], trainable: 3_686_400),
            run("ia3", "IA³ (k, v)", rouge1: [0.349, 0.35, 0.351], trainable: 129_024),
        ])
        for index in report.runs.indices.dropFirst() {
            report.runs[index].curves = (0..<3).map { curve(seed: $0, steps: 40) }
        }
        return report
    }

    /// LoRA in fp32 and over NF4, both requantized, and a QA-LoRA merged into its quantized base.
    static func requantized() -> ComparisonReport {
        func stored(_ source: Int, _ parent: MethodRun, _ storage: String, _ values: [Double], bytes: Int)
            -> MethodRun
        {
            var run = run(parent.method, "\(parent.label) → \(storage)", rouge1: values)
            (run.source, run.storedAs, run.weights) = (source, storage, parent.weights)
            (run.share, run.modelBytes) = (0, bytes)
            return run
        }
        var base = run("base", "base", rouge1: [0.2])
        base.modelBytes = 1_004_000_000
        var lora = run(
            "lora", "LoRA r 16 (all linears)", rouge1: [0.40, 0.44], trainable: 3_538_944, file: 14_000_000)
        lora.modelBytes = 1_018_000_000
        lora.tokensPerSecond = 1000
        var qlora = run("qlora", "QLoRA r 16 (all linears)", rouge1: [0.39, 0.43], trainable: 3_538_944)
        (qlora.weights, qlora.modelBytes) = ("nf4-double", 150_000_000)
        var qalora = run(
            "qalora", "QA-LoRA r 16 g 32 (all linears) over int4-g32", rouge1: [0.33, 0.37], trainable: 90_000)
        (qalora.weights, qalora.modelBytes) = ("int4-g32", 160_000_000)
        var report = report([
            base, lora, stored(1, lora, "nf4", [0.39, 0.43], bytes: 140_000_000),
            stored(1, lora, "int4-g32-gptq", [0.37, 0.43], bytes: 150_000_000), qlora,
            stored(4, qlora, "nf4", [0.36, 0.40], bytes: 140_000_000), qalora,
            stored(6, qalora, "merged", [0.33, 0.37], bytes: 158_000_000),
        ])
        for index in [1, 4, 6] { report.runs[index].curves = (0..<2).map { curve(seed: $0, steps: 20) } }
        report.findDifferences()
        return report
    }

    /// Only the base model, with everything missing or not finite.
    static func degenerate() -> ComparisonReport {
        var run = MethodRun(method: "base", label: "base")
        run.quality["rouge1"] = Statistic([.nan])
        run.quality["rougeL"] = Statistic([0.2], low: -.infinity, high: .infinity)
        run.loss = Statistic([.infinity])
        run.share = .nan
        run.tokensPerSecond = .nan
        run.trainingSeconds = .infinity
        run.learningRate = .nan
        run.inference = .init(unmerged: .nan, merged: .infinity, largestDifference: .nan)
        run.learningRateSearch = [.init(learningRate: .nan, validationLoss: .nan)]
        run.curves = [
            .init(seed: 0, training: [.init(step: 1, loss: .nan), .init(step: 2, loss: .infinity)], validation: [])
        ]
        return report([run])
    }

    static func curve(seed: Int, steps: Int) -> MethodRun.Curve {
        let points = (1...steps).map { step in
            MethodRun.Point(step: step, loss: 1 + 1.5 / Double(step) + Double(seed) * 0.01)
        }
        return .init(seed: seed, training: points, validation: points.filter { $0.step.isMultiple(of: 10) })
    }
}
