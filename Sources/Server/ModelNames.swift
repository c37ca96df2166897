import Foundation
import PEFTSupport
import Serving

/// The names that requests give in `model`: the base, an adapter, or `base:adapter`.
struct ModelNames: Sendable {
    let base: String
    let engine: Engine

    /// The adapter that a name stands for; `nil` for the base.
    /// - Throws: ``APIError`` with status 404 for an unknown name.
    func adapter(_ name: String?) throws -> String? {
        let client = Client.current
        let name = name ?? base
        let mayUseBase = client?.mayUse(base) ?? true
        if name == base, mayUseBase { return nil }
        let known = engine.adapters.map(\.name).filter { client?.mayUse($0) ?? true }
        if known.contains(name) { return name }
        if name.hasPrefix(base + ":"), known.contains(String(name.dropFirst(base.count + 1))) {
            return String(name.dropFirst(base.count + 1))
        }
        // What a client may not use doesn't exist for it.
        let hint =
            nearestName(to: name, in: known + (mayUseBase ? [base] : [])).map { "; did you mean '\($0)'?" } ?? ""
        throw APIError(
            .notFound, "the model '\(name)' does not exist\(hint)", type: "not_found_error", parameter: "model",
            code: "model_not_found")
    }

    /// - Throws: ``APIError`` for a name that an adapter can't have.
    func requireValid(_ name: String) throws {
        let allowed = CharacterSet(charactersIn: "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")
        guard (1...128).contains(name.utf8.count), name.unicodeScalars.allSatisfy(allowed.contains), name != base
        else {
            throw APIError.invalid(
                "an adapter can't be named '\(name.prefix(128))'; use up to 128 letters, digits, '.', '_', '-' and '/', and not the base model's name",
                "lora_name")
        }
    }
}
