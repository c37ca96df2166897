/// A method that is LoRA with other settings: its own name and defaults, and LoRA's plan, fields and files.
package protocol LoRAFamily: PEFTMethod where Configuration == LoRA.Configuration {
    /// Changes LoRA's defaults to this method's.
    static func configure(_ configuration: inout LoRA.Configuration)
}

extension LoRAFamily {
    package static var peftType: String? { LoRA.peftType }
    package static var defaultLearningRate: Double { LoRA.defaultLearningRate }
    package static var defaults: LoRA.Configuration {
        var configuration = LoRA.Configuration()
        configure(&configuration)
        return configuration
    }
    package static func label(_ configuration: LoRA.Configuration) -> String { LoRA.label(configuration) }
    package static func resolved(_ configuration: LoRA.Configuration, for model: ModelOutline) -> LoRA.Configuration {
        LoRA.resolved(configuration, for: model)
    }
    package static func plan(_ configuration: LoRA.Configuration, for model: ModelOutline) throws -> [Attachment] {
        try LoRA.plan(configuration, for: model)
    }
    package static func trainingHook(_ configuration: LoRA.Configuration, for adapter: Adapter)
        -> (any TrainingHook)?
    {
        LoRA.trainingHook(configuration, for: adapter)
    }
    package static func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter)
        -> LoRA.Configuration
    {
        LoRA.fileConfiguration(configuration, of: adapter)
    }
}

extension LoRAFamily where Self: LoRAInitialization {
    package static func configure(_ configuration: inout LoRA.Configuration) {
        configuration.variants.initialization = Self()
    }
}
