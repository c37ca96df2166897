import Foundation
import NIOSSL
import PEFTSupport
import Synchronization

/// The certificate that new connections get. A reload replaces it and leaves connections alone.
final class ServedCertificate: Sendable {
    let files: TLSFiles
    /// What the files said when they were read last.
    private let current: Mutex<TLSConfiguration>

    /// - Throws: ``PEFTError`` for files that can't be read or don't belong together.
    init(_ files: TLSFiles) throws {
        self.files = files
        current = Mutex(try files.configuration())
    }

    /// - Throws: ``PEFTError`` for files that can't be read or don't belong together; nothing changes then.
    func reload() throws {
        let new = try files.configuration()
        current.withLock { $0 = new }
    }

    /// The server's configuration, which looks the current certificate up for each connection.
    var configuration: TLSConfiguration {
        var configuration = current.withLock { $0 }
        configuration.sslContextCallback = { [self] _, promise in
            let latest = current.withLock { $0 }
            var own = NIOSSLContextConfigurationOverride()
            (own.certificateChain, own.privateKey) = (latest.certificateChain, latest.privateKey)
            promise.succeed(own)
        }
        return configuration
    }
}

/// The certificate and private key of `--tls-certificate` and `--tls-key`.
struct TLSFiles: Sendable {
    let certificate: String
    let key: String

    /// TLS 1.2 or later with them.
    /// - Throws: ``PEFTError`` for files that can't be read or don't belong together.
    func configuration() throws -> TLSConfiguration {
        func path(_ text: String) -> String { NSString(string: text).expandingTildeInPath }
        let chain: [NIOSSLCertificate]
        do { chain = try NIOSSLCertificate.fromPEMFile(path(certificate)) } catch {
            throw PEFTError(
                "--tls-certificate '\(certificate)' is not a readable certificate",
                remedy: "use a PEM file with the server's certificate, followed by those of its issuers")
        }
        let own: NIOSSLPrivateKey
        do {
            // A key with a passphrase has none here.
            own = try NIOSSLPrivateKey(file: path(key), format: .pem) { $0([UInt8]()) }
        } catch {
            throw PEFTError(
                "--tls-key '\(key)' is not a readable private key", remedy: "use a PEM file without a passphrase")
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(own))
        configuration.minimumTLSVersion = .tlsv12
        do { _ = try NIOSSLContext(configuration: configuration) } catch {
            throw PEFTError(
                "--tls-key '\(key)' is not the key of --tls-certificate '\(certificate)'",
                remedy: "use the key that the certificate was issued for")
        }
        return configuration
    }
}
