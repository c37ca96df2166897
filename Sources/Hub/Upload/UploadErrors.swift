import Foundation
import PEFTSupport

/// Translates error responses of uploads to errors with remedies.
struct UploadErrors {
    let name: HubName
    let settings: HubSettings

    /// The error for an unsuccessful response.
    /// - Parameter action: what was tried, such as `create owner/name`.
    func error(_ response: HTTPResponse, _ action: String) -> PEFTError {
        let reason = message(response).map { ": \($0)" } ?? ""
        let owner = name.id.split(separator: "/").first.map(String.init) ?? name.id
        switch response.status {
        case 401:
            return PEFTError(
                "the hub rejected the token in use\(reason)",
                remedy: "set HF_TOKEN to a valid token with permission to write")
        case 403:
            return PEFTError(
                "the token in use may not \(action)\(reason)",
                remedy: "use a token with permission to write to '\(owner)', or another name")
        case 404:
            return PEFTError(
                "can't \(action): the hub has no such repository or branch\(reason)",
                remedy: "check the name; a branch other than \(HubName.mainRevision) has to exist")
        case 409, 412:
            return PEFTError("can't \(action): the repository changed meanwhile\(reason)", remedy: "push again")
        case 413: return PEFTError("can't \(action): it is too large\(reason)", remedy: "push fewer or smaller files")
        case 429: return PEFTError("the hub is limiting the rate of requests", remedy: "try again later")
        case 500...:
            return PEFTError("the hub failed with status \(response.status)\(reason)", remedy: "try again later")
        default:
            return PEFTError(
                "can't \(action): the hub responded with status \(response.status)\(reason)",
                remedy: "change what it names, or check that HF_ENDPOINT is the address of a hub")
        }
    }

    /// The reason that the hub gives, in a header or in the body.
    private func message(_ response: HTTPResponse) -> String? {
        if let message = response["x-error-message"] { return Self.clause(message) }
        guard response.body.count < 10_000,
            let text = (try? JSON.parse(response.body, name: "answer"))?["error"]?.string
        else { return nil }
        return Self.clause(text)
    }

    /// A sentence of the hub as a part of one.
    private static func clause(_ text: String) -> String {
        let line = text.split(whereSeparator: \.isNewline).joined(separator: " ")
        return line.hasSuffix(".") ? String(line.dropLast()) : line
    }

    /// The error for a failed transfer.
    func error(_ failure: HTTPFailure) -> any Error {
        switch failure {
        case .unreachable(let reason):
            PEFTError(
                "can't reach the hub for \(name): \(reason)", remedy: "check the network and HF_ENDPOINT")
        case .cut(let reason):
            PEFTError(
                "the connection failed while uploading to \(name): \(reason)",
                remedy: "push again; large files that arrived are not sent twice")
        case .impossible(let reason):
            PEFTError("can't upload to \(name): \(reason)", remedy: "check the network, its proxy and HF_ENDPOINT")
        case .cancelled: CancellationError()
        }
    }

    func json(_ response: HTTPResponse) throws -> JSON {
        guard let json = try? JSON.parse(response.body, name: "answer") else {
            throw malformed("anything that can be read")
        }
        return json
    }

    func malformed(_ what: String) -> PEFTError {
        PEFTError("the hub's answer does not state \(what)", remedy: "check that HF_ENDPOINT is the address of a hub")
    }
}
