/** What stands in a journal of files in hand. Source: docs/formats/daemon-state.md, "Files in hand". */
export const MAGIC = Buffer.from('NYDFILE1')
/** Kind 1, length of the rest 1, number 8, then what the kind has. */
export const RECORD = { kind: 0, length: 1, number: 2, rest: 10 } as const
export const KIND = { node: 1, forgotten: 2, open: 3, released: 4, done: 5, begun: 6 } as const
export const OPEN = { size: 12, node: 10, flags: 18 } as const
export const DONE = { size: 4, result: 10 } as const
export const BEGUN = { size: 28, at: 10, before: 18 } as const
/** What stands under a name: number of the inode 8, its birth in seconds 8, nanoseconds 4. Zeros: nothing; all ones: not known. */
export const STANDING_BYTES = 20
/** Of the requests that were answered last; the kernel hands out fewer again. */
export const MOST_CHANGES = 4096

/** What was there before a change: see docs/formats/daemon-state.md, "Changes that were begun". */
export interface Begun {
  /** Milliseconds since 1970. */
  readonly at: number
  readonly before: Uint8Array
}

/** A request that cannot be done twice, by its number without the top bit. */
export interface Change {
  readonly low: number
  readonly high: number
  readonly begun?: Begun
  /** 0 or more when it was done, else minus an errno; undefined: it was under way. */
  readonly result?: number
}

/** What another process had in hand. */
export interface FilesInHand {
  /** Handles of the host's file system, by node. */
  readonly nodes: ReadonlyMap<number, Uint8Array>
  readonly opens: ReadonlyMap<number, { readonly node: number; readonly flags: number }>
  /** By {@link requestKey}: perhaps they were not answered. Whoever answers one takes it out. */
  readonly changes: Map<string, Change>
}

export function nothingInHand(): FilesInHand {
  return { nodes: new Map(), opens: new Map(), changes: new Map() }
}

/** A request, also one that is handed out again, which has another top bit. */
export function requestKey(low: number, high: number): string {
  return `${low}:${high & 0x7fff_ffff}`
}

/** What stands in a journal; its end may have been cut by a death, and what does not fit is passed over. */
export function parseInHand(bytes: Buffer): FilesInHand {
  const [nodes, opens] = [new Map<number, Uint8Array>(), new Map<number, { node: number; flags: number }>()]
  const changes = new Map<string, Change>()
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return nothingInHand()
  for (let at = MAGIC.length; at + RECORD.rest <= bytes.length; ) {
    const length = bytes[at + RECORD.length] ?? 0
    const record = bytes.subarray(at, at + RECORD.rest + length)
    if (record.length < RECORD.rest + length) break
    at += record.length
    const number = Number(record.readBigUInt64LE(RECORD.number))
    switch (record[RECORD.kind]) {
      case KIND.node:
        nodes.set(number, record.subarray(RECORD.rest))
        break
      case KIND.forgotten:
        nodes.delete(number)
        break
      case KIND.open:
        if (length >= OPEN.size)
          opens.set(number, {
            node: Number(record.readBigUInt64LE(OPEN.node)),
            flags: record.readUInt32LE(OPEN.flags),
          })
        break
      case KIND.released:
        opens.delete(number)
        break
      case KIND.done:
        if (length >= DONE.size) note(changes, record, { result: record.readInt32LE(DONE.result) })
        break
      case KIND.begun:
        if (length >= BEGUN.size) note(changes, record, { begun: begunIn(record) })
        break
      default:
        return { nodes, opens, changes } // no record of ours: what follows means nothing
    }
  }
  return { nodes, opens, changes }
}

function begunIn(record: Buffer): Begun {
  return {
    at: Number(record.readBigUInt64LE(BEGUN.at)),
    before: record.subarray(BEGUN.before, BEGUN.before + STANDING_BYTES),
  }
}

function note(changes: Map<string, Change>, record: Buffer, what: Pick<Change, 'begun' | 'result'>): void {
  const [low, high] = [record.readUInt32LE(RECORD.number), record.readUInt32LE(RECORD.number + 4)]
  const key = requestKey(low, high)
  changes.delete(key)
  changes.set(key, { low, high, ...what })
  if (changes.size > MOST_CHANGES) takeOldest(changes)
}

export function takeOldest(from: Map<string, unknown>): void {
  for (const oldest of from.keys()) {
    from.delete(oldest)
    return
  }
}
