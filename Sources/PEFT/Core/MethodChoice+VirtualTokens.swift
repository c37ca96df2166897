extension MethodChoice {
    /// Number of virtual tokens that soft prompts and prefixes put before each sequence.
    package var virtualTokens: Int { configuration.json["num_virtual_tokens"]?.int ?? 0 }
}
