import CTorch
import PEFTSupport

/// Addresses of this host.
package enum NetworkAddress {
    /// The address of the interface that leads to another host.
    /// - Throws: ``PEFTError`` if the host is unknown or unreachable.
    package static func local(toward host: String) throws -> String {
        var address = [CChar](repeating: 0, count: 128)
        guard ct_local_address(host, &address, address.count) == 0 else {
            let error = lastError()
            throw PEFTError(error.problem, remedy: "check MASTER_ADDR")
        }
        return String(decoding: address.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    package static func isLoopback(_ address: String) -> Bool { address.hasPrefix("127.") || address == "::1" }

    /// A socket that listens at a free port of the loopback interface, and the port.
    package static func listenLocally() throws -> (socket: Int32, port: Int) {
        var port: Int32 = 0
        let socket = ct_listen_locally(&port)
        guard socket >= 0 else { throw lastError() }
        return (socket, Int(port))
    }
}
