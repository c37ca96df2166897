import Foundation
import PEFT
import PEFTSupport
import Torch

/// Right-singular vectors of one adapter's A matrices, by projection.
struct SubspaceBasis {
    let value: String
    let seed: Int
    /// Path of the projection to its right-singular vectors [r, in], the strongest first.
    let directions: [String: Tensor]

    /// - Returns: one basis, or none for a method without A matrices.
    static func of(_ adapter: Adapter, value: String, seed: Int) throws -> [SubspaceBasis] {
        let stored = adapter.storedTensors().filter {
            ($0.key.hasSuffix(".lora_A.weight") || $0.key.hasSuffix(".lora_A")) && $0.value.rank == 2
        }
        guard !stored.isEmpty else { return [] }
        let directions = try withTorchErrors {
            try withoutGradients {
                try stored.mapValues { matrix -> Tensor in
                    guard matrix.isFinite().to(.float32).sum().item() == Double(matrix.count) else {
                        throw PEFTError(
                            "an adapter has NaN or infinite weights", remedy: "lower the learning rate")
                    }
                    // Contiguous as in a file, so that results are bit-identical after reading it back.
                    return matrix.to(.cpu).to(.float64).svd().vh.contiguous()
                }
            }
        }
        return [SubspaceBasis(value: value, seed: seed, directions: directions)]
    }
}

extension SubspaceBasis {
    func write(to file: URL) throws { try SafetensorsFile.write(directions, to: file) }

    /// - Returns: `nil` if there is none, as for methods without A matrices.
    static func read(_ file: URL, value: String, seed: Int) throws -> SubspaceBasis? {
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        let stored = try SafetensorsFile(file)
        let names = stored.entries.keys.map { ($0, $0) }
        return SubspaceBasis(
            value: value, seed: seed,
            directions: try withTorchErrors {
                try Dictionary(uniqueKeysWithValues: names).mapValues { try stored.tensor($0) }
            })
    }
}

extension SubspaceSimilarity {
    /// The similarities of all pairs of values in their first seed, then of two seeds of each value.
    static func pairs(_ bases: [SubspaceBasis], values: [String]) throws -> [SubspaceSimilarity] {
        var result: [SubspaceSimilarity] = []
        let first = bases.filter { $0.seed == 0 }
        for (index, a) in first.enumerated() {
            for b in first.dropFirst(index + 1) { if let pair = try similarity(a, b) { result.append(pair) } }
        }
        for a in first {
            guard let b = bases.first(where: { $0.value == a.value && $0.seed == 1 }) else { continue }
            if let pair = try similarity(a, b) { result.append(pair) }
        }
        return result
    }

    private static func similarity(_ a: SubspaceBasis, _ b: SubspaceBasis) throws -> SubspaceSimilarity? {
        let paths = a.directions.keys.filter { b.directions[$0] != nil }.sorted()
        let rows = paths.compactMap { a.directions[$0]?.dim(0) }.min() ?? 0
        let columns = paths.compactMap { b.directions[$0]?.dim(0) }.min() ?? 0
        guard rows > 0, columns > 0 else { return nil }
        var sum = [Double](repeating: 0, count: rows * columns)
        var random = 0.0
        try withTorchErrors {
            for path in paths {
                guard let x = a.directions[path], let y = b.directions[path], x.dim(1) == y.dim(1) else { continue }
                let squares = x.narrowed(axis: 0, 0..<rows).matmul(y.narrowed(axis: 0, 0..<columns).T).squared()
                let cumulated: [Double] = squares.cumulativeSum(axis: 0).cumulativeSum(axis: 1).array()
                for index in sum.indices { sum[index] += cumulated[index] }
                random += Double(max(rows, columns)) / Double(x.dim(1))
            }
        }
        // Rounded, as products of bases read from files may differ in their last bit (different alignment).
        func phi(_ i: Int, _ j: Int) -> Double {
            (sum[i * columns + j] / Double(paths.count) / Double(min(i, j) + 1) * 1e12).rounded() / 1e12
        }
        return SubspaceSimilarity(
            from: a.value, to: b.value, isBetweenSeeds: a.seed != b.seed, whole: phi(rows - 1, columns - 1),
            first: phi(0, 0), random: min(1, random / Double(paths.count)),
            grid: (0..<min(rows, 64)).map { i in (0..<min(columns, 64)).map { j in phi(i, j) } })
    }
}
