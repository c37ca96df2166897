import Foundation
import Torch

/// Adafactor (Shazeer & Stern 2018, algorithms 4 and 5) with an external learning rate: the second moment of a matrix
/// is factored into row and column means.
///
/// Arithmetic as in `transformers.Adafactor` with `relative_step=False`, `warmup_init=False`.
package final class Adafactor: Optimizer {
    package let parameters: [Parameter]
    package private(set) var step = 0
    private let clipThreshold: Double, decayRate: Double, weightDecay: Double, scaleParameter: Bool
    private let epsilon = (square: 1e-30, scale: 1e-3)
    /// Row and column means for tensors of two or more axes, else one tensor of the full shape.
    private var rows: [Tensor?]
    private var columns: [Tensor?]
    private var full: [Tensor?]
    private let rateFactors: [Double]

    /// - Parameters:
    ///   - rateFactors: learning-rate factor of each parameter; 1 by default.
    ///   - scaleParameter: multiply the learning rate by the parameter's RMS.
    ///   - clipThreshold: maximum RMS of an update.
    package init(
        _ parameters: [Parameter], rateFactors: [Double]? = nil, weightDecay: Double = 0,
        scaleParameter: Bool = false, clipThreshold: Double = 1,
        decayRate: Double = -0.8
    ) {
        self.parameters = parameters
        self.rateFactors = rateFactors ?? Array(repeating: 1, count: parameters.count)
        (self.weightDecay, self.scaleParameter) = (weightDecay, scaleParameter)
        (self.clipThreshold, self.decayRate) = (clipThreshold, decayRate)
        func zeros(_ shape: [Int], _ like: Tensor) -> Tensor { .zeros(shape, dtype: like.dtype, device: like.device) }
        rows = parameters.map { $0.tensor.rank >= 2 ? zeros(Array($0.tensor.shape.dropLast()), $0.tensor) : nil }
        columns = parameters.map {
            let shape = $0.tensor.shape
            return shape.count >= 2 ? zeros(Array(shape.dropLast(2)) + [shape[shape.count - 1]], $0.tensor) : nil
        }
        full = parameters.map { $0.tensor.rank < 2 ? .zeros(like: $0.tensor) : nil }
    }

    package func update(learningRate: Double) {
        step += 1
        let beta = 1 - Foundation.pow(Double(step), decayRate)
        withoutGradients {
            for (index, parameter) in parameters.enumerated() {
                guard let gradient = parameter.tensor.grad else { continue }
                apply(
                    index, parameter.tensor, gradient, beta: beta,
                    learningRate: learningRate * rateFactors[index])
            }
        }
    }

    private func apply(_ index: Int, _ value: Tensor, _ gradient: Tensor, beta: Double, learningRate: Double) {
        let squared = gradient.squared() + epsilon.square
        let update: Tensor
        if let row = rows[index], let column = columns[index] {
            row.scale(by: beta)
            row.add(squared.mean(axes: [-1]), alpha: 1 - beta)
            column.scale(by: beta)
            column.add(squared.mean(axes: [-2]), alpha: 1 - beta)
            let rowFactor = (row / row.mean(axes: [-1], keep: true)).rsqrt().unsqueezed(-1)
            update = rowFactor * column.unsqueezed(-2).rsqrt() * gradient
        } else if let moment = full[index] {
            moment.scale(by: beta)
            moment.add(squared, alpha: 1 - beta)
            update = moment.rsqrt() * gradient
        } else {
            return
        }
        let size = rootMeanSquare(update)
        let rate = scaleParameter ? learningRate * max(epsilon.scale, rootMeanSquare(value)) : learningRate
        // Weight decay uses the scaled learning rate and the value before the update.
        if weightDecay > 0 { value.detached().add(value.detached(), alpha: -weightDecay * rate) }
        value.detached().add(update, alpha: -rate / max(1, size / clipThreshold))
    }

    private func rootMeanSquare(_ x: Tensor) -> Double { x.squared().mean().item().squareRoot() }

    package func state() -> [String: Tensor] {
        var state: [String: Tensor] = [:]
        for index in parameters.indices {
            state["row.\(index)"] = rows[index]
            state["column.\(index)"] = columns[index]
            state["full.\(index)"] = full[index]
        }
        return state
    }

    package func restore(_ state: [String: Tensor], step: Int) throws {
        let newRows = try parameters.indices.map { index in
            try rows[index].map { try restored("row.\(index)", like: $0, from: state) }
        }
        let newColumns = try parameters.indices.map { index in
            try columns[index].map { try restored("column.\(index)", like: $0, from: state) }
        }
        let newFull = try parameters.indices.map { index in
            try full[index].map { try restored("full.\(index)", like: $0, from: state) }
        }
        (rows, columns, full, self.step) = (newRows, newColumns, newFull, step)
    }
}
