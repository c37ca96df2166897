import Experiments
import Foundation
import HTTPTypes
import Hummingbird
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Serving

/// The pages for browsers: the playground and, with `--runs`, training runs and reports.
struct PageRoutes: Sendable {
    let engine: Engine
    let names: ModelNames
    let keys: APIKeys
    let hasChats: Bool
    /// The runs of `--runs`; `nil` without.
    let runs: RunStore?
    /// Whether the server speaks HTTPS.
    let isSecure: Bool

    private static let playground = "/playground"
    private static let list = "/runs"

    private func navigation(_ current: String?) -> Markup {
        let links = [(Self.playground, "Playground")] + (runs == nil ? [] : [(Self.list, "Runs")])
        return Navigation.markup(links.map { (address: $0.0, name: $0.1) }, current: current)
    }

    func add(to router: Router<ServerContext>) {
        router.get("/") { _, _ in Self.redirect(to: Self.playground) }
        router.get("/playground") { _, _ in
            let page = PlaygroundPage(base: names.base, adapters: engine.adapters, hasChats: hasChats)
            return Self.page(page.html(navigation: navigation(Self.playground)))
        }
        router.get("/login") { request, _ in
            Self.page(
                LoginPage.html(
                    next: Self.local(request.uri.queryParameters["next"].map { String($0) }), isWrong: false))
        }
        router.post("/login") { request, _ in try await login(request) }
        guard let runs else { return }
        router.get("/runs") { _, _ in
            try runs.refresh()
            let items = try runs.list().map { RunsPage.Item(address: "\(Self.list)/\($0.id)", entry: $0.entry) }
            return Self.page(
                RunsPage(items, folder: runs.folder.path).html(navigation: navigation(Self.list)))
        }
        router.get("/runs/:id") { _, context in
            let entry = try entry(context, runs)
            if entry.kind == .training, let run = runs.training(entry) {
                let live = "\(Self.list)/\(context.parameters.get("id") ?? "")/live"
                return Self.page(TrainingRunPage(run).html(navigation: navigation(nil), liveAddress: live))
            }
            guard let page = entry.reportPage(navigation: navigation(nil)) else {
                throw APIError(.notFound, "this version can't read the run '\(entry.name)'", type: "not_found_error")
            }
            return Self.page(page)
        }
        router.get("/runs/:id/live") { _, context in
            let entry = try entry(context, runs)
            guard let run = runs.training(entry) else {
                throw APIError(.notFound, "'\(entry.name)' is no training run", type: "not_found_error")
            }
            return Self.page(TrainingRunPage(run).content.text)
        }
    }

    private func entry(_ context: ServerContext, _ runs: RunStore) throws -> RunEntry {
        guard let id = context.parameters.get("id", as: Int64.self), let entry = try runs.run(id) else {
            throw APIError(.notFound, "there is no such run", type: "not_found_error")
        }
        return entry
    }

    /// Checks the key of the form, and sends the browser to the page that it wanted.
    private func login(_ request: Request) async throws -> Response {
        var request = request
        let body = try await request.collectBody(upTo: 16 << 10)
        var form = URLComponents()
        form.percentEncodedQuery = String(buffer: body).replacing("+", with: "%20")
        func field(_ name: String) -> String { form.queryItems?.first { $0.name == name }?.value ?? "" }
        let next = Self.local(field("next"))
        guard keys.isEmpty || keys.client(field("key"))?.isAdministrator ?? false else {
            return Self.page(LoginPage.html(next: next, isWrong: true), status: .unauthorized)
        }
        var response = Self.redirect(to: next)
        response.headers[.setCookie] = PageSessions.shared.begin(isSecure: isSecure)
        return response
    }

    /// A path on this server; the playground for anything else.
    private static func local(_ path: String?) -> String {
        guard let path, path.hasPrefix("/"), !path.hasPrefix("//"), !path.contains("\\"), path.allSatisfy(\.isASCII),
            !path.contains(where: \.isNewline)
        else { return playground }
        return path
    }

    private static func redirect(to path: String) -> Response {
        Response(status: .seeOther, headers: [.location: path])
    }

    private static func page(_ text: String, status: HTTPResponse.Status = .ok) -> Response {
        var headers: HTTPFields = [.contentType: "text/html; charset=utf-8", .cacheControl: "no-store"]
        // The pages' own policy can't forbid frames, so this header does.
        headers[.xContentTypeOptions] = "nosniff"
        headers[.contentSecurityPolicy] = "frame-ancestors 'none'; base-uri 'none'"
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }
}

extension ServerCommand {
    func addPages(_ engine: Engine, _ names: ModelNames, _ keys: APIKeys, to router: Router<ServerContext>) throws {
        let runs = try options.runs.map {
            try RunStore(URL(fileURLWithPath: NSString(string: $0).expandingTildeInPath))
        }
        let template = try? ChatTemplate.load(
            folder: ModelLocator.folder(options.model, needing: .description), choice: options.chatTemplate)
        PageRoutes(
            engine: engine, names: names, keys: keys, hasChats: template != nil, runs: runs,
            isSecure: options.tls != nil
        ).add(to: router)
    }
}
