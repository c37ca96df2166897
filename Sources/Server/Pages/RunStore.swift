import Experiments
import Foundation
import GRDB
import PEFTSupport

/// The runs of a folder, kept in a SQLite database in it: reports and records stay when their files are removed.
final class RunStore: Sendable {
    static let fileName = "runs.sqlite"

    struct Listed: Sendable {
        let id: Int64
        let entry: RunEntry
    }

    let folder: URL
    private let finder: RunFinder
    private let database: DatabaseQueue

    /// Opens the database, or creates it.
    /// - Throws: ``PEFTError`` if there is no such folder, or the database can't be written.
    init(_ folder: URL) throws {
        self.folder = folder
        finder = RunFinder(folder)
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: folder.path, isDirectory: &isFolder), isFolder.boolValue else {
            throw PEFTError("there is no folder '\(folder.path)'", remedy: "create it, or name another")
        }
        var configuration = Configuration()
        // The server and peft runs may use it at once.
        configuration.busyMode = .timeout(5)
        let file = folder.appendingPathComponent(Self.fileName)
        do {
            database = try DatabaseQueue(path: file.path, configuration: configuration)
            var migrator = DatabaseMigrator()
            migrator.registerMigration("1") { database in
                try database.create(table: "run") { table in
                    table.autoIncrementedPrimaryKey("id")
                    table.column("kind", .text).notNull()
                    table.column("name", .text).notNull()
                    table.column("title", .text).notNull()
                    table.column("detail", .text).notNull()
                    table.column("state", .text).notNull()
                    table.column("date", .double).notNull()
                    table.column("content", .blob).notNull()
                    table.uniqueKey(["kind", "name"])
                }
                // Files that were looked at, whether they held a run or not.
                try database.create(table: "file") { table in
                    table.primaryKey("path", .text)
                    table.column("stamp", .text).notNull()
                }
            }
            try migrator.migrate(database)
        } catch let error as DatabaseError { throw Self.failure(error, file) }
    }

    private static func failure(_ error: DatabaseError, _ file: URL) -> PEFTError {
        PEFTError(
            "can't use \(file.path): \(error.message ?? "error \(error.resultCode.rawValue)")",
            remedy: "check its permissions and the free space, or remove it to start anew")
    }

    private func working<Result>(_ body: () throws -> Result) throws -> Result {
        do { return try body() } catch let error as DatabaseError {
            throw Self.failure(error, folder.appendingPathComponent(Self.fileName))
        }
    }

    /// Takes in the files that are new or changed.
    func refresh() throws {
        let files = finder.files()
        try working {
            let known = try database.read { database in
                try Row.fetchAll(database, sql: "SELECT path, stamp FROM file").reduce(into: [String: String]()) {
                    $0[$1["path"]] = $1["stamp"]
                }
            }
            for file in files where known[file.path] != file.stamp {
                let entry = try finder.entry(file)
                try database.write { database in
                    if let entry { try Self.put(entry, database) }
                    try database.execute(
                        sql: "INSERT INTO file VALUES (?, ?) ON CONFLICT (path) DO UPDATE SET stamp = excluded.stamp",
                        arguments: [file.path, file.stamp])
                }
            }
        }
    }

    private static func put(_ entry: RunEntry, _ database: Database) throws {
        try database.execute(
            sql: """
                INSERT INTO run (kind, name, title, detail, state, date, content) VALUES (?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (kind, name) DO UPDATE SET title = excluded.title, detail = excluded.detail,
                state = excluded.state, date = excluded.date, content = excluded.content
                """,
            arguments: [
                entry.kind.rawValue, entry.name, entry.title, entry.detail, entry.state.rawValue,
                entry.date.timeIntervalSince1970, entry.content,
            ])
    }

    /// All runs without their contents, the newest first.
    func list() throws -> [Listed] {
        try working {
            try database.read { database in
                try Row.fetchAll(
                    database,
                    sql: "SELECT id, kind, name, title, detail, state, date FROM run ORDER BY date DESC, id DESC"
                ).compactMap { Self.listed($0, content: Data()) }
            }
        }.map { listed in
            guard listed.entry.state == .running else { return listed }
            // The state of a process that was killed is in no file, and a run that left nothing ended.
            var entry = listed.entry
            entry.state = finder.training(named: entry.name)?.state ?? .interrupted
            return Listed(id: listed.id, entry: entry)
        }
    }

    /// A run with its content; `nil` if there is none of this number.
    func run(_ id: Int64) throws -> RunEntry? {
        try working {
            try database.read { database in
                try Row.fetchOne(database, sql: "SELECT * FROM run WHERE id = ?", arguments: [id]).flatMap { row in
                    Self.listed(row, content: row["content"])?.entry
                }
            }
        }
    }

    /// A training run as it is now, or as it was when its files were there.
    func training(_ entry: RunEntry) -> TrainingRun? {
        if let run = finder.training(named: entry.name) { return run }
        var run = entry.training
        if run?.description.state == .running { run?.description.state = .interrupted }
        return run
    }

    private static func listed(_ row: Row, content: Data) -> Listed? {
        guard let kind = RunEntry.Kind(rawValue: row["kind"]), let state = RunEntry.State(rawValue: row["state"])
        else {
            return nil
        }
        return Listed(
            id: row["id"],
            entry: RunEntry(
                kind: kind, name: row["name"], title: row["title"], detail: row["detail"], state: state,
                date: Date(timeIntervalSince1970: row["date"]), content: content))
    }
}
