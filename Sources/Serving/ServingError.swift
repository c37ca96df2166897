import PEFTSupport

/// Why a request is rejected or fails.
package struct ServingError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// A value of the request is invalid.
        case invalid
        /// No model or adapter has this name.
        case unknownModel
        /// The request exceeds the context length or all of the KV memory.
        case tooLong
        /// The queue is full; try again after this number of seconds.
        case busy(retryAfter: Int)
        /// The request's time is over.
        case deadline
        /// The server is shutting down.
        case shuttingDown
        /// The adapter can't be loaded or doesn't fit the model.
        case adapter
        /// The computation failed.
        case failed
    }

    package let kind: Kind
    package let message: String
    /// The request's field that is at fault.
    package let parameter: String?

    package init(_ kind: Kind, _ message: String, parameter: String? = nil) {
        (self.kind, self.message, self.parameter) = (kind, message, parameter)
    }

    /// An error of the library.
    init(_ kind: Kind, _ error: any Error, parameter: String? = nil) {
        if let error = error as? ServingError {
            self = error
        } else {
            self.init(kind, (error as? PEFTError)?.description ?? "\(error)", parameter: parameter)
        }
    }

    package var description: String { message }
}
