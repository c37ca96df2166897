import HTTPTypes
import Hummingbird

/// Lets scripts of pages from chosen origins read answers (`--cors-origin`).
struct CORS<Context: RequestContext>: RouterMiddleware {
    /// Origins such as `https://example.org`; `*` stands for all.
    let origins: Set<String>

    func handle(
        _ request: Request, context: Context, next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        guard let origin = request.headers[.origin], origins.contains(origin) || origins.contains("*") else {
            return try await next(request, context)
        }
        // A preflight has no key, and asks no route.
        let isPreflight = request.method == .options && request.headers[.accessControlRequestMethod] != nil
        var response = isPreflight ? Response(status: .noContent) : try await next(request, context)
        response.headers[.accessControlAllowOrigin] = origins.contains("*") ? "*" : origin
        if !origins.contains("*") { response.headers[.vary] = "Origin" }
        if isPreflight {
            response.headers[.accessControlAllowMethods] = "GET, POST, OPTIONS"
            // Clients send headers of their own, which change nothing for a page from an allowed origin.
            response.headers[.accessControlAllowHeaders] =
                request.headers[.accessControlRequestHeaders]
                ?? "Authorization, Content-Type, X-Request-Id, X-Api-Key"
            response.headers[.accessControlMaxAge] = "600"
        } else {
            response.headers[.accessControlExposeHeaders] = "X-Request-Id, Retry-After"
        }
        return response
    }
}
