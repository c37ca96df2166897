/// How far a heap grows under a sequence of blocks made and freed.
///
/// The program tells glibc to give nothing back (`Runtime.keepFreedMemory`), so that resident memory follows the
/// heap's highest address and not what is alive: the smallest free block that fits is taken, its rest stays free,
/// neighbours join, and what fits nowhere goes on top (Wilson et al. 1995, Dynamic storage allocation, best fit).
struct HeapModel {
    /// The highest address so far: what stays resident.
    private(set) var top = 0
    /// Free blocks, the smallest first and among equal ones the lowest.
    private var free: [(size: Int, start: Int)] = []
    private var freeStarts: [Int: Int] = [:]
    private var freeEnds: [Int: Int] = [:]
    private var blocks: [Int: (start: Int, size: Int)] = [:]

    /// libtorch asks for blocks at multiples of 64. glibc (before 2.38) takes a chunk that is larger by the alignment and
    /// the smallest chunk, and frees what lies before and behind: a freed block is therefore too small for another of
    /// its own size, unless a neighbour is free too.
    private static let alignment = 64, smallest = 32, header = 16

    mutating func make(_ block: Int, bytes: Int) {
        let size = max(Self.smallest, (bytes + 8 + 15) / 16 * 16)
        let request = size + Self.alignment + Self.smallest
        var (start, available) = (top, request)
        let place = position(of: (request, 0))
        if place < free.count {
            (available, start) = free[place]
            removeFree(start: start, size: available)
        } else {
            // The topmost block grows if it is free.
            if let below = freeEnds[top] {
                start = below
                removeFree(start: below, size: top - below)
            }
            top = start + request
        }
        let user = start + Self.header
        var aligned = (user + Self.alignment - 1) / Self.alignment * Self.alignment
        if aligned > user, aligned - user < Self.smallest { aligned += Self.alignment }
        let lead = aligned - user
        let rest = available - lead - size
        let kept = rest >= Self.smallest ? size : size + rest
        blocks[block] = (start + lead, kept)
        if lead > 0 { release(start: start, size: lead) }
        if kept == size, rest > 0 { release(start: start + lead + size, size: rest) }
    }

    mutating func free(_ block: Int) {
        guard let known = blocks.removeValue(forKey: block) else { return }
        release(start: known.start, size: known.size)
    }

    /// Makes a range free, joined with its free neighbours.
    private mutating func release(start: Int, size: Int) {
        var (start, size) = (start, size)
        if let below = freeEnds[start] {
            removeFree(start: below, size: start - below)
            (start, size) = (below, size + start - below)
        }
        if let above = freeStarts[start + size] {
            removeFree(start: start + size, size: above)
            size += above
        }
        addFree(start: start, size: size)
    }

    /// The first free block that isn't before `key`.
    private func position(of key: (size: Int, start: Int)) -> Int {
        var (low, high) = (0, free.count)
        while low < high {
            let middle = (low + high) / 2
            if free[middle] < key { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func addFree(start: Int, size: Int) {
        free.insert((size, start), at: position(of: (size, start)))
        freeStarts[start] = size
        freeEnds[start + size] = start
    }

    private mutating func removeFree(start: Int, size: Int) {
        free.remove(at: position(of: (size, start)))
        freeStarts[start] = nil
        freeEnds[start + size] = nil
    }
}
