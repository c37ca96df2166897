import PEFTSupport

/// A method with a configuration of its own type. ``MethodChoice`` erases both together, so that no method can meet
/// another's configuration.
protocol ConfiguredMethod: Sendable {
    var method: any PEFTMethod.Type { get }
    var configuration: any MethodConfiguration { get }
    var label: String { get }
    /// - Throws: ``PEFTError`` for an unknown name or an invalid value.
    func setting(_ name: String, to text: String) throws -> Self
    /// - Throws: ``PEFTError`` for a value that the field doesn't take.
    func setting(key: String, to value: JSON) throws -> Self
    /// - Throws: ``PEFTError`` if the configuration is invalid or doesn't fit the model.
    func plan(for model: ModelOutline) throws -> [Attachment]
    func resolved(for model: ModelOutline) -> Self
    func forFile(of adapter: Adapter) -> Self
    func trainingHook(for adapter: Adapter) -> (any TrainingHook)?
}

/// The requirements of ``PEFTMethod``, applied to one configuration.
struct Configured<Method: PEFTMethod>: ConfiguredMethod {
    private var own: Method.Configuration

    init(configuration: Method.Configuration) { own = configuration }

    var method: any PEFTMethod.Type { Method.self }
    var configuration: any MethodConfiguration { own }
    var label: String { Method.label(own) }

    func setting(_ name: String, to text: String) throws -> Self {
        var copy = self
        try copy.own.set(name, to: text)
        return copy
    }

    func setting(key: String, to value: JSON) throws -> Self {
        var copy = self
        try Method.Configuration.fields.first { $0.key == key }?.write(&copy.own, value)
        return copy
    }

    func plan(for model: ModelOutline) throws -> [Attachment] {
        try own.validate()
        return try Method.plan(own, for: model)
    }

    func resolved(for model: ModelOutline) -> Self { Self(configuration: Method.resolved(own, for: model)) }

    func forFile(of adapter: Adapter) -> Self { Self(configuration: Method.fileConfiguration(own, of: adapter)) }

    func trainingHook(for adapter: Adapter) -> (any TrainingHook)? { Method.trainingHook(own, for: adapter) }
}
