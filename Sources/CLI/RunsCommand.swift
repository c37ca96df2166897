import ArgumentParser

/// `peft runs`: replaces the process by `peft-server`, as only it needs the packages of a database.
struct RunsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "runs",
        abstract: "List training runs, comparisons, sweeps and soft-prompt maps of a folder.",
        discussion: """
            peft runs experiments

            Runs peft-server runs, of the program beside this one, with the same options; peft runs --help lists them. make
            server builds it. peft serve --runs shows the runs as pages.
            """)

    @Argument(parsing: .captureForPassthrough, help: "Options of peft-server runs.") var arguments: [String] = []

    func run() throws { try ServeCommand.run(["runs"] + arguments) }
}
