/// Simulates the growth of a best-fit heap under a sequence of allocations and frees.
///
/// The program tells glibc to keep freed memory (`Runtime.keepFreedMemory`), so that resident memory follows the
/// heap's highest address and not the live blocks: the smallest free block that fits is split, adjacent free
/// blocks are coalesced, and blocks that fit nowhere extend the heap (Wilson et al. 1995, *Dynamic storage allocation*).
struct HeapModel {
    /// The highest address so far, up to which memory stays resident.
    private(set) var top = 0
    /// Free blocks, sorted by size and address.
    private var free: [(size: Int, start: Int)] = []
    private var freeStarts: [Int: Int] = [:]
    private var freeEnds: [Int: Int] = [:]
    private var blocks: [Int: (start: Int, size: Int)] = [:]

    /// A plain block holds the tensor and room to align it to 64 bytes (`Runtime.cpp`), behind glibc's header of 16.
    private static func padded(_ bytes: Int) -> Int { (bytes + 64 + 16 + 15) / 16 * 16 }

    mutating func make(_ block: Int, bytes: Int) {
        let size = Self.padded(bytes)
        let place = position(of: (size, 0))
        if place < free.count {
            let (available, start) = free[place]
            removeFree(start: start, size: available)
            if available > size { addFree(start: start + size, size: available - size) }
            blocks[block] = (start, size)
            return
        }
        // The topmost block grows if it is free.
        var start = top
        if let below = freeEnds[top] {
            start = below
            removeFree(start: below, size: top - below)
        }
        blocks[block] = (start, size)
        top = start + size
    }

    mutating func free(_ block: Int) {
        guard let known = blocks.removeValue(forKey: block) else { return }
        var (start, size) = known
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
