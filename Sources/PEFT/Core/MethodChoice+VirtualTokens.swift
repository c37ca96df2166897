extension MethodChoice {
    /// Virtual tokens that the method puts before each row: those of soft prompts and prefixes.
    public var virtualTokens: Int { configuration.json["num_virtual_tokens"]?.int ?? 0 }
}
