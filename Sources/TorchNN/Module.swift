import Foundation
import Torch

/// One tensor of a module, by reference: a loader, an optimizer and the module see the same value.
public final class Parameter {
    public var tensor: Tensor
    /// What lies under ``tensor`` while adapters have put values of their own in its place, the model's own first.
    private var covered: [Tensor] = []

    public init(_ tensor: Tensor) { self.tensor = tensor }

    /// Whether the values in use are an adapter's and not the model's own.
    public var isCovered: Bool { !covered.isEmpty }

    /// Puts other values in place of those in use; the last to be put there count.
    public func cover(with values: Tensor) {
        covered.append(tensor)
        tensor = values
    }

    /// Takes values away, wherever they lie; the others keep their order.
    public func uncover(_ values: Tensor) {
        if tensor !== values, let index = covered.firstIndex(where: { $0 === values }) {
            covered.remove(at: index)
        } else if let beneath = covered.popLast() {
            tensor = beneath
        }
    }
}

/// Declares a tensor of a module, with its name in Hugging Face's checkpoints where it differs from the
/// Swift name.
@propertyWrapper
public struct ParameterInfo {
    public let key: String?
    public let parameter: Parameter

    public init(wrappedValue: Tensor, key: String? = nil) {
        self.key = key
        parameter = Parameter(wrappedValue)
    }

    public var wrappedValue: Tensor {
        get { parameter.tensor }
        nonmutating set { parameter.tensor = newValue }
    }
}

/// Declares a module inside a module (or an optional one, or an array), with its name in Hugging Face's
/// checkpoints. A name may contain dots where the checkpoint has a level that the Swift code does without, and is empty
/// where the Swift code has a level that the checkpoint does without.
@propertyWrapper
public struct ModuleInfo<Value> {
    public let key: String?
    private var value: Value?

    public init(key: String? = nil) { self.key = key }

    public init(wrappedValue: Value, key: String? = nil) {
        self.key = key
        value = wrappedValue
    }

    public var wrappedValue: Value {
        get {
            guard let value else { fatalError("a module is used before its initializer has set it") }
            return value
        }
        set { value = newValue }
    }
}

/// A part of a model: named tensors and named parts.
///
/// Subclasses declare tensors with ``ParameterInfo`` and parts with ``ModuleInfo``; the paths that follow
/// are the names in Hugging Face's checkpoints, so that no conversion is needed.
open class Module {
    /// The narrower type that matrix products of a whole model are computed in, and where; `nil` for that of its weights.
    public var precision: (type: DType, device: Device)?

    /// The folder or file that a whole model was read from, whose tokenizer belongs to it.
    public var source: URL?

    public init() {}

    /// The tensors declared in this module itself.
    open func ownParameters() -> [(key: String, parameter: Parameter)] {
        declared { name, value in
            guard let info = value as? ParameterInfo else { return [] }
            return [(info.key ?? name, info.parameter)]
        }
    }

    /// The parts declared in this module itself; elements of arrays are named by their index.
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
            levels.append(
                level.children.flatMap { child -> [Element] in
                    // A wrapped property `x` is stored as `_x`.
                    guard let label = child.label, label.hasPrefix("_") else { return [] }
                    return read(String(label.dropFirst()), child.value)
                })
            mirror = level.superclassMirror
        }
        return levels.reversed().flatMap { $0 }
    }

    /// This module and all below it, with their paths; the module itself has the path "".
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

    /// All tensors with their paths, each once: a part that is reached twice counts where it is met first.
    public final func parameters() -> [(path: String, parameter: Parameter)] {
        var seen: Set<ObjectIdentifier> = []
        return namedModules().flatMap { path, module in
            module.ownParameters().compactMap { key, parameter in
                guard seen.insert(ObjectIdentifier(parameter)).inserted else { return nil }
                return (path.isEmpty ? key : "\(path).\(key)", parameter)
            }
        }
    }

    /// The first of ``parameters()`` that fits, without a walk through those behind it.
    public final func firstParameter(where fits: (Parameter) -> Bool = { _ in true }) -> Parameter? {
        if let own = ownParameters().first(where: { fits($0.parameter) }) { return own.parameter }
        for child in children() {
            if let first = child.module.firstParameter(where: fits) { return first }
        }
        return nil
    }

    public final func trainableParameters() -> [(path: String, parameter: Parameter)] {
        parameters().filter { $0.parameter.tensor.requiresGrad }
    }

    /// Takes every tensor out of training.
    public final func freeze() {
        for (_, parameter) in parameters() { parameter.tensor.requiresGrad = false }
    }

    public final var parameterCount: Int { parameters().reduce(0) { $0 + $1.parameter.tensor.count } }
}

private protocol AnyModuleInfo {
    var key: String? { get }
    var anyValue: Any { get }
}

extension ModuleInfo: AnyModuleInfo {
    var anyValue: Any { wrappedValue }
}
