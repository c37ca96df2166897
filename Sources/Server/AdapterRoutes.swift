import Foundation
import Hummingbird
import PEFTSupport
import Serving

/// `/v1/models`, `/v1/adapters`, and loading and unloading of adapters.
struct AdapterRoutes: Sendable {
    let engine: Engine
    let names: ModelNames
    let paths: AdapterPaths
    let maxBody: Int
    private let started = Int(Date().timeIntervalSince1970)

    init(engine: Engine, names: ModelNames, paths: AdapterPaths, maxBody: Int) {
        (self.engine, self.names, self.paths, self.maxBody) = (engine, names, paths, maxBody)
    }

    func add(to router: Router<ServerContext>) {
        router.get("/v1/models", use: models)
        // Names may contain slashes, as those on a hub do.
        router.get("/v1/models/**", use: model)
        router.get("/v1/adapters", use: adapters)
        router.post("/v1/load_lora_adapter", use: load)
        router.post("/v1/unload_lora_adapter", use: unload)
    }

    private var all: [JSON] {
        func model(_ name: String, root: String, parent: JSON) -> JSON {
            [
                "id": .string(name), "object": "model", "created": .integer(started), "owned_by": "swift-peft",
                "root": .string(root), "parent": parent, "max_model_len": .integer(engine.model.contextLength),
            ]
        }
        let own = engine.adapters.filter { $0.state != .rejected }
        let all =
            [model(names.base, root: names.base, parent: .null)]
            + own.map { model($0.name, root: $0.folder.lastPathComponent, parent: .string(names.base)) }
        return all.filter { Client.current?.mayUse($0["id"]?.string ?? "") ?? true }
    }

    @Sendable private func models(_: Request, context: ServerContext) -> Response {
        Response(["object": "list", "data": .array(all)])
    }

    @Sendable private func model(_: Request, context: ServerContext) throws -> Response {
        let path = context.parameters.getCatchAll().joined(separator: "/")
        let name = path.removingPercentEncoding ?? path
        let own = try names.adapter(name) ?? names.base
        guard let model = all.first(where: { $0["id"]?.string == own }) else {
            throw APIError(
                .notFound, "the model '\(name)' does not exist", type: "not_found_error", code: "model_not_found")
        }
        return Response(model)
    }

    @Sendable private func adapters(_: Request, context: ServerContext) -> Response {
        Response(["object": "list", "data": .array(engine.adapters.map(Self.json))])
    }

    private static func json(_ status: AdapterStatus) -> JSON {
        [
            "name": .string(status.name), "path": .string(status.folder.path),
            "state": .string(status.state.rawValue),
            "method": status.method.map { .string($0) } ?? .null, "bytes": .integer(status.bytes),
            "pinned": .bool(status.isPinned), "shares_batches": .bool(status.sharesBatches),
            "virtual_tokens": .integer(status.virtualTokens), "running": .integer(status.running),
            "requests": .integer(status.requests), "problem": status.problem.map { .string($0) } ?? .null,
        ]
    }

    private struct LoadFields: Decodable {
        var lora_name: String
        var lora_path: String
        var load_inplace: Bool?
    }

    @Sendable private func load(_ incoming: Request, context: ServerContext) async throws -> Response {
        var request = incoming
        let fields: LoadFields = try await JSONBody(&request, limit: maxBody).decoded()
        try names.requireValid(fields.lora_name)
        let folder = try paths.folder(fields.lora_path)
        try await engine.loadAdapter(fields.lora_name, from: folder, replaces: fields.load_inplace ?? false)
        context.logger.info("adapter loaded", metadata: ["adapter": .string(fields.lora_name)])
        let status = engine.adapters.first { $0.name == fields.lora_name }
        return Response(["status": "loaded", "adapter": status.map(Self.json) ?? .null])
    }

    private struct UnloadFields: Decodable { var lora_name: String }

    @Sendable private func unload(_ incoming: Request, context: ServerContext) async throws -> Response {
        var request = incoming
        let fields: UnloadFields = try await JSONBody(&request, limit: maxBody).decoded()
        try await engine.unloadAdapter(fields.lora_name)
        context.logger.info("adapter unloaded", metadata: ["adapter": .string(fields.lora_name)])
        return Response(["status": "unloaded", "lora_name": .string(fields.lora_name)])
    }
}
