import Foundation
import Synchronization
import Torch

/// A tensor of a module, by reference: a loader, an optimizer and the module see the same value.
public final class Parameter {
    /// The values, which an adapter may cover with its own.
    public var tensor: Tensor
    /// Values below ``tensor`` while adapters cover it, the model's own first.
    private var covered: [Tensor] = []

    /// A parameter with these values.
    public init(_ tensor: Tensor) { self.tensor = tensor }

    /// Whether the current values are an adapter's rather than the model's.
    package var isCovered: Bool { !covered.isEmpty }

    /// Covers the current values with others; the last ones to cover are used.
    package func cover(with values: Tensor) {
        covered.append(tensor)
        tensor = values
    }

    /// Removes covering values, wherever they are in the stack; the others keep their order.
    package func uncover(_ values: Tensor) {
        if tensor !== values, let index = covered.firstIndex(where: { $0 === values }) {
            covered.remove(at: index)
        } else if let beneath = covered.popLast() {
            tensor = beneath
        }
    }
}

/// Declares a tensor of a module, with its name in Hugging Face's checkpoints if it differs from the Swift name.
@propertyWrapper
public struct ParameterInfo {
    package let key: String?
    /// The parameter itself, which ``Module/parameters()`` lists.
    public let parameter: Parameter

    /// - Parameters:
    ///   - wrappedValue: the initial values.
    ///   - key: the name in files, if it differs from the property's.
    public init(wrappedValue: Tensor, key: String? = nil) {
        self.key = key
        parameter = Parameter(wrappedValue)
    }

    /// The parameter's values.
    public var wrappedValue: Tensor {
        get { parameter.tensor }
        nonmutating set { parameter.tensor = newValue }
    }
}

/// Declares a submodule (or an optional one, or an array), with its name in Hugging Face's checkpoints. The name may
/// contain dots for levels that only the checkpoint has, and is empty for a level that only the Swift code has.
@propertyWrapper
public struct ModuleInfo<Value> {
    package let key: String?
    private var value: Value?

    /// A module that the initializer sets later.
    public init(key: String? = nil) { self.key = key }

    /// - Parameters:
    ///   - wrappedValue: the module.
    ///   - key: the name in files, if it differs from the property's.
    public init(wrappedValue: Value, key: String? = nil) {
        self.key = key
        value = wrappedValue
    }

    /// The module.
    public var wrappedValue: Value {
        get {
            guard let value else { fatalError("a module is used before its initializer has set it") }
            return value
        }
        set { value = newValue }
    }
}

/// A part of a model: named tensors and submodules.
///
/// Subclasses declare tensors with ``ParameterInfo`` and submodules with ``ModuleInfo``. The resulting paths are the
/// names in Hugging Face's checkpoints, so no conversion is needed.
open class Module {
    /// Autocast dtype of a whole model's matmuls, and its device; `nil` computes in the weights' dtype.
    package var precision: (type: DType, device: Device)?

    /// The folder or file that a whole model was loaded from, which also contains its tokenizer.
    package var source: URL?

    /// The weights of a whole model that processes divide among them; `nil` if each process has all.
    package var partitionedBase: PartitionedBase?

    /// This module's weights, if they are a part of ``partitionedBase``.
    package var part: PartitionedBase.Part?

    /// A module without parameters, until a subclass declares them.
    public init() {}

    /// The tensors declared in this module itself.
    open func ownParameters() -> [(key: String, parameter: Parameter)] {
        declared { name, value in
            guard let info = value as? ParameterInfo else { return [] }
            return [(info.key ?? name, info.parameter)]
        }
    }

    /// The submodules declared in this module itself; elements of arrays are named by their index.
    open func children() -> [(key: String, module: Module)] {
        declared { name, value in
            guard let info = value as? any AnyModuleInfo else { return [] }
            let key = info.key ?? name
            if let module = info.anyValue as? Module { return [(key, module)] }
            if let modules = info.anyValue as? [Module] {
                return modules.enumerated().map { ("\(key).\($0.offset)", $0.element) }
            }
            return []
        }
    }

    private func declared<Element>(_ read: (String, Any) -> [Element]) -> [Element] {
        var levels: [[Element]] = []
        var mirror: Mirror? = Mirror(reflecting: self)
        while let level = mirror {
            let children = level.children
            levels.append(
                Self.wrapped(level).flatMap { property in
                    read(
                        property.name, children[children.index(children.startIndex, offsetBy: property.offset)].value)
                })
            mirror = level.superclassMirror
        }
        return levels.reversed().flatMap { $0 }
    }

    /// The names and places of a class's wrapped properties among its stored ones, found once per class: reading a
    /// property by reflection takes about a microsecond, and most aren't wrapped.
    private static func wrapped(_ level: Mirror) -> [(name: String, offset: Int)] {
        let type = ObjectIdentifier(level.subjectType)
        if let known = wrappedProperties.withLock({ $0[type] }) { return known }
        // A wrapped property `x` is stored as `_x`.
        let found = level.children.enumerated().compactMap { offset, child in
            child.label.flatMap { $0.hasPrefix("_") ? (name: String($0.dropFirst()), offset: offset) : nil }
        }
        wrappedProperties.withLock { $0[type] = found }
        return found
    }

    private static let wrappedProperties = Mutex<[ObjectIdentifier: [(name: String, offset: Int)]]>([:])

    /// This module and all submodules with their paths; the module itself has the path "".
    public final func namedModules() -> [(path: String, module: Module)] {
        var result: [(String, Module)] = []
        func visit(_ path: String, _ module: Module) {
            result.append((path, module))
            for (key, child) in module.children() {
                visit(path.isEmpty ? key : key.isEmpty ? path : "\(path).\(key)", child)
            }
        }
        visit("", self)
        return result
    }

    /// All tensors with their paths, each once: a shared submodule is listed where it is first reached.
    public final func parameters() -> [(path: String, parameter: Parameter)] {
        var seen: Set<ObjectIdentifier> = []
        return namedModules().flatMap { path, module in
            module.ownParameters().compactMap { key, parameter in
                guard seen.insert(ObjectIdentifier(parameter)).inserted else { return nil }
                return (path.isEmpty ? key : key.isEmpty ? path : "\(path).\(key)", parameter)
            }
        }
    }

    /// The first of ``parameters()`` that satisfies a predicate, without traversing the rest.
    package final func firstParameter(where fits: (Parameter) -> Bool = { _ in true }) -> Parameter? {
        if let own = ownParameters().first(where: { fits($0.parameter) }) { return own.parameter }
        for child in children() {
            if let first = child.module.firstParameter(where: fits) { return first }
        }
        return nil
    }

    /// The parameters whose gradients are computed, with their paths.
    public final func trainableParameters() -> [(path: String, parameter: Parameter)] {
        parameters().filter { $0.parameter.tensor.requiresGrad }
    }

    /// Disables gradients of every tensor.
    package final func freeze() {
        for (_, parameter) in parameters() { parameter.tensor.requiresGrad = false }
    }

    /// Number of values of all parameters.
    package final var parameterCount: Int { parameters().reduce(0) { $0 + $1.parameter.tensor.count } }
}

private protocol AnyModuleInfo {
    var key: String? { get }
    var anyValue: Any { get }
}

extension ModuleInfo: AnyModuleInfo {
    var anyValue: Any { wrappedValue }
}
