import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Settings of an AdapterFusion, with the names and defaults of AdapterHub's dynamic one.
package struct FusionConfiguration: MethodConfiguration {
    package var hasQuery = true
    package var hasKey = true
    package var hasValue = true
    /// Whether the query is the sublayer's output before it joins the residual stream.
    var queriesOutput = false
    /// Whether keys and values contain the sublayer's output.
    var addsResidualFirst = false
    /// Whether training draws V towards the identity.
    package var isRegularized = true
    /// Dropout probability of the scores.
    package var dropout = 0.0

    package init() {}

    package static let fields: [ConfigurationField<FusionConfiguration>] = [
        .init("query", key: "query", .flag, help: "project queries") {
            .bool($0.hasQuery)
        } write: {
            $0.hasQuery = try flag($1)
        },
        .init("key", key: "key", .flag, help: "project keys") {
            .bool($0.hasKey)
        } write: {
            $0.hasKey = try flag($1)
        },
        .init("value", key: "value", .flag, help: "project values") {
            .bool($0.hasValue)
        } write: {
            $0.hasValue = try flag($1)
        },
        .init("query-before-ln", key: "query_before_ln", .flag, help: "query with the sublayer's output") {
            .bool($0.queriesOutput)
        } write: {
            $0.queriesOutput = try flag($1)
        },
        .init("residual-before", key: "residual_before", .flag, help: "add the sublayer's output to keys and values")
        {
            .bool($0.addsResidualFirst)
        } write: {
            $0.addsResidualFirst = try flag($1)
        },
        .init("regularization", key: "regularization", .flag, help: "draw V towards the identity in training") {
            .bool($0.isRegularized)
        } write: {
            $0.isRegularized = try flag($1)
        },
        .init("dropout", key: "dropout_prob", .number(0...1), help: "dropout probability of the scores") {
            .wholeOr($0.dropout)
        } write: {
            $0.dropout = try number($1)
        },
    ]

    package func validate() throws {
        guard hasQuery || hasKey || hasValue else {
            throw PEFTError("the fusion has neither query nor key nor value", remedy: "use one of them at least")
        }
        guard (0..<1).contains(dropout) else {
            throw PEFTError("the fusion's dropout is \(dropout)", remedy: "use a value from 0 to below 1")
        }
    }

    /// The settings as AdapterHub writes them.
    var adapterHub: [String: JSON] {
        json.merging(["temperature": false, "value_before_softmax": true, "value_initialized": .bool(hasValue)]) {
            $1
        }
    }

    /// The attention's tensors at a site.
    func tensors(size: Int) -> [TensorSpec] {
        (hasQuery ? [TensorSpec("query.weight", [size, size]), TensorSpec("query.bias", [size])] : [])
            + (hasKey ? [TensorSpec("key.weight", [size, size]), TensorSpec("key.bias", [size])] : [])
            + (hasValue ? [TensorSpec("value.weight", [size, size])] : [])
    }
}

/// AdapterFusion (Pfeiffer et al. 2021, eqs. 3–5): attention of a token to what each of several adapters adds to a sublayer's output y,
/// zₑ. With the query h, which is y as it joins the residual stream, s = softmax((Q h + q)ᵀ (K zₑ + k)) and y + Σₑ sₑ V zₑ.
final class FusionAttention {
    private let query: (weight: Parameter, bias: Parameter)?
    private let key: (weight: Parameter, bias: Parameter)?
    /// V `[size, size]`.
    let value: Parameter?
    private let configuration: FusionConfiguration

    init(_ size: Int, _ configuration: FusionConfiguration, _ context: AttachmentContext) {
        self.configuration = configuration
        // BERT's initialization, as in AdapterHub.
        func projection() -> (weight: Parameter, bias: Parameter) {
            (Parameter(context.normal([size, size], deviation: 0.02)), Parameter(context.zeros([size])))
        }
        query = configuration.hasQuery ? projection() : nil
        key = configuration.hasKey ? projection() : nil
        // The identity, and 1e-6 elsewhere.
        value =
            configuration.hasValue
            ? Parameter(
                Tensor.identity(size, dtype: context.dtype, device: context.device) * (1 - 1e-6)
                    + .full([size, size], 1e-6, dtype: context.dtype, device: context.device)) : nil
    }

    var tensors: [(key: String, parameter: Parameter)] {
        (query.map { [("query.weight", $0.weight), ("query.bias", $0.bias)] } ?? [])
            + (key.map { [("key.weight", $0.weight), ("key.bias", $0.bias)] } ?? [])
            + (value.map { [("value.weight", $0)] } ?? [])
    }

    /// - Parameters:
    ///   - y: the sublayer's output, `[..., size]`.
    ///   - joined: what the adapters read.
    ///   - deltas: what each of them adds.
    /// - Returns: the new output.
    func callAsFunction(_ y: Tensor, joined: Tensor, deltas: [Tensor]) -> Tensor {
        let size = y.dim(-1)
        let flat = y.reshaped(-1, size)
        // [tokens, adapters, size]
        let added = Tensor.concatenated(
            deltas.map { delta in
                let delta = delta.reshaped(-1, 1, size)
                return configuration.addsResidualFirst ? delta + flat.unsqueezed(1) : delta
            }, axis: 1)
        let source = (configuration.queriesOutput ? y : joined).reshaped(-1, size)
        let queries = query.map { Functions.linear(source, $0.weight.tensor, bias: $0.bias.tensor) } ?? source
        let keys = key.map { Functions.linear(added, $0.weight.tensor, bias: $0.bias.tensor) } ?? added
        let values = value.map { Functions.linear(added, $0.tensor) } ?? added
        let scores = dropout((keys * queries.unsqueezed(1)).sum(axes: [2]), configuration.dropout)
        let context = (scores.softmax().unsqueezed(2) * values).sum(axes: [1]).reshaped(y.shape)
        return configuration.addsResidualFirst ? context : y + context
    }
}

/// 0.01 · Σ (V − I)² over all sites: draws the values of a fusion towards the adapters' own (Pfeiffer et al. 2021, section 4.2).
final class FusionPenalty: TrainingHook {
    private let values: [Tensor]

    init(_ values: [Tensor]) { self.values = values }

    func penalty() -> Tensor? {
        values.map { value in
            (value - .identity(value.dim(0), dtype: value.dtype, device: value.device)).squared().sum() * 0.01
        }.reduce(nil as Tensor?) { sum, term in sum.map { $0 + term } ?? term }
    }
}
