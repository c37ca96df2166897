/// The program's version, shown by `peft --version` and in reports.
package enum Version {
    package static let current = "0.2.0"
}
