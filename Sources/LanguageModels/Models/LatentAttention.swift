import Foundation
import PEFTSupport
import Torch
import TorchNN

/// Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, section 2.1): queries, and keys with values, pass through
/// low-rank latents; a part of each key, the only one with RoPE, is shared by all heads.
final class LatentAttention: SelfAttention {
    struct Settings: Sendable {
        let hiddenSize: Int
        let heads: Int
        /// Size of the queries' latent; `nil` for queries projected directly.
        let queryRank: Int?
        let keyRank: Int
        /// Sizes of a head's keys without and with RoPE, and of its values.
        let plainSize, rotatedSize, valueSize: Int
        let hasBias: Bool
        let scale: Double
        let dropout: Double
    }

    @ModuleInfo(key: "q_proj") var q: Linear?
    @ModuleInfo(key: "q_a_proj") var queryDown: Linear?
    @ModuleInfo(key: "q_a_layernorm") var queryNorm: RMSNorm?
    @ModuleInfo(key: "q_b_proj") var queryUp: Linear?
    @ModuleInfo(key: "kv_a_proj_with_mqa") var keyDown: Linear
    @ModuleInfo(key: "kv_a_layernorm") var keyNorm: RMSNorm
    @ModuleInfo(key: "kv_b_proj") var keyUp: Linear
    @ModuleInfo(key: "o_proj") var o: Linear
    @ModuleInfo(key: "prefix_site") var site: KeyValueSite
    private let settings: Settings
    private let layer: Int
    private let rotary: RotaryPositions

    init(_ settings: Settings, layer: Int, rotary: RotaryPositions) {
        (self.settings, self.layer, self.rotary) = (settings, layer, rotary)
        let (size, heads) = (settings.hiddenSize, settings.heads)
        let keySize = settings.plainSize + settings.rotatedSize
        super.init()
        // Prefix tuning of latents is not defined.
        _site.wrappedValue = KeyValueSite(
            .attention, role: .decoder, heads: heads, headSize: max(keySize, settings.valueSize), takesPrefixes: false
        )
        // transformers' norms of latents have this ε whatever the configuration.
        func norm(_ size: Int) -> RMSNorm { RMSNorm(size, epsilon: 1e-6) }
        let rank = settings.queryRank
        _q.wrappedValue = rank == nil ? Linear(size, heads * keySize, bias: false) : nil
        _queryDown.wrappedValue = rank.map { Linear(size, $0, bias: settings.hasBias) }
        _queryNorm.wrappedValue = rank.map { norm($0) }
        _queryUp.wrappedValue = rank.map { Linear($0, heads * keySize, bias: false) }
        _keyDown.wrappedValue = Linear(size, settings.keyRank + settings.rotatedSize, bias: settings.hasBias)
        _keyNorm.wrappedValue = norm(settings.keyRank)
        _keyUp.wrappedValue = Linear(
            settings.keyRank, heads * (settings.plainSize + settings.valueSize), bias: false)
        _o.wrappedValue = Linear(heads * settings.valueSize, size, bias: settings.hasBias)
    }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let (heads, plain, rotated) = (settings.heads, settings.plainSize, settings.rotatedSize)
        let own = context.selected(x)
        let projected: Tensor
        if let queryDown, let queryNorm, let queryUp {
            projected = queryUp(queryNorm(queryDown(own)))
        } else {
            projected = q?(own) ?? own
        }
        let queryParts = projected.reshaped(-1, heads, plain + rotated).split(axis: -1, [plain, rotated])
        let queries = Tensor.concatenated(
            [queryParts[0], context.rotatedQueries(queryParts[1].contiguous(), rotary)], axis: -1)

        let latents = keyDown(x).split(axis: -1, [settings.keyRank, rotated])
        let shared = context.rotated(latents[1].reshaped(-1, 1, rotated).contiguous(), rotary)
        let parts = keyUp(keyNorm(latents[0].contiguous())).reshaped(-1, heads, plain + settings.valueSize)
            .split(axis: -1, [plain, settings.valueSize])
        let keys = Tensor.concatenated(
            [parts[0], shared.expanded([shared.dim(0), heads, rotated])], axis: -1)

        // Heads of one size: zeros change neither scores nor the values that are kept.
        let size = max(plain + rotated, settings.valueSize)
        func padded(_ x: Tensor) -> Tensor {
            guard x.dim(-1) < size else { return x.contiguous() }
            let zeros = Tensor.zeros([x.dim(0), x.dim(1), size - x.dim(-1)], dtype: x.dtype, device: x.device)
            return Tensor.concatenated([x, zeros], axis: -1)
        }
        let mixed = context.attend(
            padded(queries), padded(keys), padded(parts[1]), site: site, layer: layer, scale: settings.scale,
            dropout: settings.dropout)
        let values = size > settings.valueSize ? mixed.narrowed(axis: -1, 0..<settings.valueSize) : mixed
        return o(values.reshaped(-1, heads * settings.valueSize))
    }
}

extension LatentAttention.Settings {
    /// - Parameters:
    ///   - heads: the family's default number of heads.
    ///   - size: the family's default hidden size.
    init(_ read: ConfigurationReader, size: Int, heads: Int) throws {
        hiddenSize = try read.integer("hidden_size", .width, default: size)
        self.heads = try read.integer("num_attention_heads", .heads, default: heads)
        let keyHeads = try read.integer("num_key_value_heads", .heads, default: self.heads)
        guard keyHeads == self.heads else {
            throw PEFTError(
                "config.json: 'num_key_value_heads' is \(keyHeads), but latent attention has \(self.heads) heads of each kind",
                remedy: "set it to 'num_attention_heads'")
        }
        queryRank =
            read.json["q_lora_rank"] == .null ? nil : try read.integer("q_lora_rank", .width, default: 1536)
        keyRank = try read.integer("kv_lora_rank", .width, default: 512)
        plainSize = try read.integer("qk_nope_head_dim", .headSize, default: 128)
        rotatedSize = try read.integer("qk_rope_head_dim", .headSize, default: 64)
        valueSize = try read.integer("v_head_dim", .headSize, default: 128)
        hasBias = try read.boolean("attention_bias", default: false)
        dropout = try read.number("attention_dropout", default: 0)
        var scale = 1 / Double(plainSize + rotatedSize).squareRoot()
        // YaRN grows the scores, too (Peng et al. 2023, section 3.4).
        let old = read.filledObject("rope_scaling")
        if let parameters = old ?? read.json["rope_parameters"],
            let kind = (parameters["rope_type"] ?? parameters["type"])?.string, kind != "default",
            let all = parameters["mscale_all_dim"]?.double, all != 0, let factor = parameters["factor"]?.double,
            factor > 1
        {
            let growth = 0.1 * all * Foundation.log(factor) + 1
            scale *= growth * growth
        }
        self.scale = scale
    }
}
