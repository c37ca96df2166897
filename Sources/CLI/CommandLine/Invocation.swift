import ArgumentParser
import PEFTSupport

/// Prepares a command line for the parser: inserts the options of a configuration file, rewrites method options, and
/// rejects mistakes that the parser would accept or report poorly.
enum Invocation {
    enum Outcome {
        /// Arguments for the parser.
        case parse([String])
        /// A help page to print.
        case help(String)
    }

    static func prepare(_ arguments: [String]) throws -> Outcome {
        guard let first = arguments.first, first != "--config", !first.hasPrefix("--config=") else {
            guard arguments.isEmpty else {
                throw UsageError(
                    "--config must follow a command", remedy: "use for example peft train --config run.yaml")
            }
            return .parse(arguments)
        }
        guard !first.hasPrefix("-") else { return .parse(arguments) }
        if first == "help" {
            guard let name = arguments.dropFirst().first else { return .parse(["--help"]) }
            return .help(try HelpPage(OptionTable(command(named: name))).text())
        }
        let table = try OptionTable(command(named: first))
        let rest = Array(arguments.dropFirst())
        if asksForHelp(rest, table) { return .help(HelpPage(table).text()) }
        var given = try table.split(rest)
        try table.rejectRepeats(given)
        try table.rejectStrays(given)
        if let path = configuration(in: given) {
            let isGiven = Set(given.compactMap(\.key))
            let fromFile = try ConfigurationFile.read(path, table).filter { !isGiven.contains($0.key ?? "") }
            given = fromFile + given.filter { $0.key != "config" }
        }
        if table.declares("again") { given = try RepeatedRun.expand(given, table) }
        if given.contains(where: { $0.key == "quiet" }) { Console.isQuiet = true }
        if !table.declares("quiet") { given.removeAll { $0.key == "quiet" } }
        return .parse([first] + given.flatMap(\.words))
    }

    /// The parsed command.
    /// - Throws: ``UsageError`` in place of the parser's multi-line errors.
    static func parse(_ arguments: [String]) throws -> any ParsableCommand {
        do { return try Peft.parseAsRoot(arguments) } catch {
            let code = Peft.exitCode(for: error)
            guard code == .validationFailure else { throw error }
            let message = Peft.message(for: error).split(separator: "\n").joined(separator: " ")
            let start = message.prefix(1).lowercased() + message.dropFirst()
            let command = arguments.first.map { $0.hasPrefix("-") ? "" : " \($0)" } ?? ""
            throw UsageError(start, remedy: "peft\(command) --help lists the options")
        }
    }

    private static func command(named name: String) throws -> any ParsableCommand.Type {
        let commands = Peft.configuration.subcommands
        if let command = commands.first(where: { Self.name($0) == name }) { return command }
        let names = commands.map(Self.name)
        let hint = nearestName(to: name, in: names + ["help"]).map { "did you mean '\($0)'?" }
        throw UsageError("unknown command '\(name)'", remedy: hint ?? "use one of \(names.joined(separator: ", "))")
    }

    private static func name(_ command: any ParsableCommand.Type) -> String {
        command.configuration.commandName ?? "\(command)".lowercased()
    }

    /// Whether `--help` or `-h` occurs before `--`.
    private static func asksForHelp(_ arguments: [String], _ table: OptionTable) -> Bool {
        arguments.prefix { $0 != "--" }.contains { ["--help", "-h"].contains($0) }
    }

    private static func configuration(in arguments: [GivenArgument]) -> String? {
        for case .option(let option, _, let value?) in arguments where option.key == "config" { return value }
        return nil
    }
}
