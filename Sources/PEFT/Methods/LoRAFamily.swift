/// A method that is LoRA with other settings: its own name and defaults, and LoRA's plan, fields and files.
public protocol LoRAFamily: PEFTMethod where Configuration == LoRA.Configuration {
    /// Changes LoRA's defaults to this method's.
    static func configure(_ configuration: inout LoRA.Configuration)
}

extension LoRAFamily {
    public static var peftType: String? { LoRA.peftType }
    public static var defaultLearningRate: Double { LoRA.defaultLearningRate }
    public static var defaults: LoRA.Configuration {
        var configuration = LoRA.Configuration()
        configure(&configuration)
        return configuration
    }
    public static func label(_ configuration: LoRA.Configuration) -> String { LoRA.label(configuration) }
    public static func resolved(_ configuration: LoRA.Configuration, for model: ModelOutline) -> LoRA.Configuration {
        LoRA.resolved(configuration, for: model)
    }
    public static func plan(_ configuration: LoRA.Configuration, for model: ModelOutline) throws -> [Attachment] {
        try LoRA.plan(configuration, for: model)
    }
    public static func trainingHook(_ configuration: LoRA.Configuration, for adapter: Adapter)
        -> (any TrainingHook)?
    {
        LoRA.trainingHook(configuration, for: adapter)
    }
    public static func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter)
        -> LoRA.Configuration
    {
        LoRA.fileConfiguration(configuration, of: adapter)
    }
}

extension LoRAFamily where Self: LoRAInitialization {
    public static func configure(_ configuration: inout LoRA.Configuration) {
        configuration.variants.initialization = Self()
    }
}
