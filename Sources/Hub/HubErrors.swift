import PEFTSupport

/// Translates error responses of the hub to errors with remedies.
struct HubErrors {
    let name: HubName
    let settings: HubSettings

    private var tokenRemedy: String {
        settings.token == nil
            ? "if it is private, set HF_TOKEN to a token with access to it"
            : "if it is private, the token in use may have no access to it"
    }

    private var nearestCached: String {
        nearestName(to: name.id, in: HubCache(settings).names).map { "; the closest cached name is '\($0)'" } ?? ""
    }

    /// The error for an unsuccessful response.
    func error(_ response: HTTPResponse, file: String? = nil) -> PEFTError {
        let code = response["x-error-code"]
        let message = response["x-error-message"].map { ": \($0)" } ?? ""
        switch (response.status, code) {
        case _ where code == "GatedRepo" || (response.status == 403 && code == nil && file != nil):
            return PEFTError(
                "access to the gated model \(name.id) was denied\(message)",
                remedy:
                    "accept its conditions at \(settings.endpoint)/\(name.id) with your account, and set HF_TOKEN to a"
                    + " token of that account")
        case (_, "RevisionNotFound"):
            return PEFTError(
                "\(name.id) has no revision '\(name.revision)'",
                remedy: "write a branch, a tag or a commit after the @\(cachedRevisions)")
        case _ where response.status == 404 && (code == "EntryNotFound" || (code == nil && file != nil)):
            return PEFTError(
                "\(name) has no file '\(file ?? "?")'", remedy: "the repository may have changed; try again")
        case (401, nil) where settings.token != nil:
            return PEFTError(
                "the hub rejected the token in use\(message)", remedy: "set HF_TOKEN to a valid token")
        case (_, "RepoNotFound"), (401, _), (404, _):
            return PEFTError(
                "the hub has no model '\(name.id)', or you have no access to it",
                remedy: "check its name, which is owner/name\(nearestCached); \(tokenRemedy)")
        case (403, _):
            return PEFTError("the hub denied access to \(name.id)\(message)", remedy: tokenRemedy)
        case (429, _):
            return PEFTError(
                "the hub is limiting the rate of requests from this address",
                remedy: "try again later" + (settings.token == nil ? ", or set HF_TOKEN, which allows more" : ""))
        case (500..., _):
            return PEFTError(
                "the hub failed with status \(response.status)\(message)", remedy: "try again later")
        default:
            return PEFTError(
                "the hub responded with status \(response.status)\(message)",
                remedy: "check that HF_ENDPOINT is the address of a hub")
        }
    }

    /// The error for a failed transfer.
    func error(_ failure: HTTPFailure, file: String? = nil) -> any Error {
        let what = file.map { "\($0) of \(name)" } ?? "\(name)"
        return switch failure {
        case .unreachable(let reason):
            PEFTError(
                "can't reach the hub for \(what): \(reason)",
                remedy: "check the network and HF_ENDPOINT\(nearestCached)")
        case .cut(let reason):
            PEFTError(
                "the connection failed repeatedly while downloading \(what): \(reason)",
                remedy: "run the same command again to resume")
        case .impossible(let reason):
            PEFTError("can't download \(what): \(reason)", remedy: "check the network, its proxy and HF_ENDPOINT")
        case .cancelled: CancellationError()
        }
    }

    private var cachedRevisions: String {
        let cache = HubCache(settings)
        return cache.snapshot(.main(of: name)) == nil ? "" : "; its 'main' is cached"
    }

    /// The error for a repository that isn't cached in offline mode.
    func offline() -> PEFTError {
        PEFTError(
            "\(name) is not in the cache at \(settings.cache.path), and HF_HUB_OFFLINE is set",
            remedy: "unset it to download the model\(nearestCached)")
    }
}

extension HubName {
    /// The same repository at its main revision.
    static func main(of name: HubName) -> HubName { HubName(id: name.id, revision: mainRevision) }

    private init(id: String, revision: String) { (self.id, self.revision) = (id, revision) }
}
