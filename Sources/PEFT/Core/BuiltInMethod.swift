import LanguageModels
import PEFTSupport

/// A method of this package. Users see its name and its configuration; how it works is its ``Implementation``, so that
/// a method adds its options to the public interface, and nothing else.
package protocol BuiltInMethod: PEFTMethod where Configuration == Implementation.Configuration {
    associatedtype Implementation: PEFTMethod
}

// A public type's witnesses must be public. They are documented by the requirements.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
extension BuiltInMethod {
    public static var name: String { Implementation.name }
    public static var peftType: String? { Implementation.peftType }
    public static var isReadableByHuggingFace: Bool { Implementation.isReadableByHuggingFace }
    public static var summary: String { Implementation.summary }
    public static var defaultLearningRate: Double { Implementation.defaultLearningRate }
    public static var start: AdapterStart { Implementation.start }
    public static var baseStorage: WeightStorage? { Implementation.baseStorage }
    public static var isMergeable: Bool { Implementation.isMergeable }
    public static var defaults: Configuration { Implementation.defaults }
    public static func label(_ configuration: Configuration) -> String { Implementation.label(configuration) }
    public static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        try Implementation.plan(configuration, for: model)
    }
    public static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
        Implementation.resolved(configuration, for: model)
    }
    public static func trainingHook(_ configuration: Configuration, for adapter: Adapter) -> (any TrainingHook)? {
        Implementation.trainingHook(configuration, for: adapter)
    }
    public static func fileConfiguration(_ configuration: Configuration, of adapter: Adapter) -> Configuration {
        Implementation.fileConfiguration(configuration, of: adapter)
    }
    public static func recognizes(_ json: [String: JSON]) -> Bool { Implementation.recognizes(json) }
}

/// The configuration of a method of this package: its options, and apart from them their ``Declaration``.
package protocol BuiltInConfiguration: MethodConfiguration {
    associatedtype Declaration: ConfigurationDeclaration where Declaration.Configuration == Self
    /// - Throws: ``PEFTError`` for invalid values or combinations.
    func check() throws
}

/// Names, ranges and help of a configuration's options, as ``MethodConfiguration`` explains them.
package protocol ConfigurationDeclaration {
    associatedtype Configuration: MethodConfiguration
    static var fileDefaults: Configuration { get }
    static var fields: [ConfigurationField<Configuration>] { get }
    static var neutral: [String: [JSON]] { get }
}

extension ConfigurationDeclaration {
    package static var fileDefaults: Configuration { Configuration() }
    package static var neutral: [String: [JSON]] { [:] }
}

// A public type's witnesses must be public. They are documented by the requirements.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
extension BuiltInConfiguration {
    public static var fileDefaults: Self { Declaration.fileDefaults }
    public static var fields: [ConfigurationField<Self>] { Declaration.fields }
    public static var neutral: [String: [JSON]] { Declaration.neutral }
    public func validate() throws { try check() }
}
