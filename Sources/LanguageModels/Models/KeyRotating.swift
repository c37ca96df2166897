import Torch
import TorchNN

/// A model whose keys can be rotated to other positions.
package protocol KeyRotating: LanguageModel {
    /// Keys `[tokens, heads, headSize]` of a layer, each rotated by a number of positions.
    /// - Returns: `nil` if attention to them then depends on more than relative positions: with a window, or with cosines
    ///   and sines that are scaled or depend on the length.
    func rotated(_ keys: Tensor, by positions: Int, layer: Int) -> Tensor?
}

extension Llama: KeyRotating {
    package func rotated(_ keys: Tensor, by positions: Int, layer: Int) -> Tensor? {
        guard settings.windows.indices.contains(layer), settings.windows[layer] == nil else { return nil }
        guard let rotary = settings.rotary(ofLayer: layer) else { return keys }
        guard rotary.attentionFactor == 1, rotary.limit == nil, rotary.longFrequencies == nil else { return nil }
        let places = Tensor([Int](repeating: positions, count: keys.dim(0)))
        return rotary.rotate(
            keys.to(.float32), rotary.rotation(at: places, longest: positions + 1, dtype: .float32))
    }
}
