/** What stands in a journal of files in hand. Source: docs/formats/daemon-state.md, "Files in hand". */
export const MAGIC = Buffer.from('NYDFILE1')
/** Kind 1, length of the rest 1, number 8, then what the kind has. */
export const RECORD = { kind: 0, length: 1, number: 2, rest: 10 } as const
export const KIND = { node: 1, forgotten: 2, open: 3, released: 4, done: 5, begun: 6, layered: 7, name: 8 } as const
/** The number of the request came later than the other fields. */
export const OPEN = { size: 20, withoutRequest: 12, node: 10, flags: 18, low: 22, high: 26 } as const
export const DONE = { size: 4, result: 10 } as const
export const BEGUN = { size: 28, at: 10, before: 18 } as const
/** `size` without the handle, which may follow. */
export const LAYERED = { size: 29, parent: 10, lower: 18, origin: 26, removed: 34, state: 38, handle: 39 } as const
const STATE = { GONE: 1, PLACING: 2 } as const
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

/** A file or directory of an overlay. */
export interface LayeredNode {
  /** Of what only the image has: the node of its directory. */
  readonly parent: number | undefined
  /** In the image: a file that was not copied, or the directory that this one is merged with. */
  readonly lower: number | undefined
  /** In the image: what its number comes from. */
  readonly origin: number | undefined
  /** Names that the image has of it, and that were removed. */
  readonly removed: number
  /** Its last name was removed. */
  readonly isGone: boolean
  /** Only the image has it, and the file of the handle, a copy, was about to get its names. */
  readonly isPlacing: boolean
  /** Of the file in the upper directory; undefined = only the image has it. */
  readonly handle: Uint8Array | undefined
}

/** A request by its number, without the top bit. */
export interface RequestNumber {
  readonly low: number
  readonly high: number
}

/** A handle of FUSE, and the request that it was the answer to. */
export interface OpenInHand {
  readonly node: number
  readonly flags: number
  readonly request: RequestNumber | undefined
}

/** What another process had in hand. */
export interface FilesInHand {
  /** Handles of the host's file system, by node. */
  readonly nodes: ReadonlyMap<number, Uint8Array>
  readonly layered: ReadonlyMap<number, LayeredNode>
  /** Names, without NULs, of nodes that only an image has. */
  readonly names: ReadonlyMap<number, Uint8Array>
  readonly opens: ReadonlyMap<number, OpenInHand>
  /** By {@link requestKey}: perhaps they were not answered. Whoever answers one takes it out. */
  readonly changes: Map<string, Change>
  /** Bytes of the journal up to its last whole record. */
  readonly end: number
}

export function nothingInHand(): FilesInHand {
  return { nodes: new Map(), layered: new Map(), names: new Map(), opens: new Map(), changes: new Map(), end: 0 }
}

/** A request, also one that is handed out again, which has another top bit. */
export function requestKey(low: number, high: number): string {
  return `${low}:${high & 0x7fff_ffff}`
}

/** What stands in a journal; its end may have been cut by a death, and what does not fit is passed over. */
export function parseInHand(bytes: Buffer): FilesInHand {
  const found = {
    nodes: new Map<number, Uint8Array>(),
    layered: new Map<number, LayeredNode>(),
    names: new Map<number, Uint8Array>(),
    opens: new Map<number, OpenInHand>(),
    changes: new Map<string, Change>(),
  }
  let at = MAGIC.length
  if (!bytes.subarray(0, at).equals(MAGIC)) return nothingInHand()
  while (at + RECORD.rest <= bytes.length) {
    const length = bytes[at + RECORD.length] ?? 0
    const record = bytes.subarray(at, at + RECORD.rest + length)
    if (record.length < RECORD.rest + length) break
    if (!takeRecord(found, record)) break // no record of ours: what follows means nothing
    at += record.length
  }
  return { ...found, end: at }
}

type Mutable<T> = T extends ReadonlyMap<infer K, infer V> ? Map<K, V> : T
type Found = { -readonly [key in Exclude<keyof FilesInHand, 'end'>]: Mutable<FilesInHand[key]> }

/** False: it is of an unknown kind. */
function takeRecord({ nodes, layered, names, opens, changes }: Found, record: Buffer): boolean {
  const length = record.length - RECORD.rest
  const number = Number(record.readBigUInt64LE(RECORD.number))
  switch (record[RECORD.kind]) {
    case KIND.node:
      nodes.set(number, record.subarray(RECORD.rest))
      return true
    case KIND.layered:
      if (length >= LAYERED.size) layered.set(number, layeredIn(record))
      return true
    case KIND.name:
      names.set(number, record.subarray(RECORD.rest))
      return true
    case KIND.forgotten:
      for (const known of [nodes, layered, names]) known.delete(number)
      return true
    case KIND.open:
      if (length >= OPEN.withoutRequest) opens.set(number, openIn(record))
      return true
    case KIND.released:
      opens.delete(number)
      return true
    case KIND.done:
      if (length >= DONE.size) note(changes, record, { result: record.readInt32LE(DONE.result) })
      return true
    case KIND.begun:
      if (length >= BEGUN.size) note(changes, record, { begun: begunIn(record) })
      return true
    default:
      return false
  }
}

function openIn(record: Buffer): OpenInHand {
  const hasRequest = record.length >= RECORD.rest + OPEN.size
  const [low, high] = hasRequest ? [record.readUInt32LE(OPEN.low), record.readUInt32LE(OPEN.high)] : [0, 0]
  return {
    node: Number(record.readBigUInt64LE(OPEN.node)),
    flags: record.readUInt32LE(OPEN.flags),
    request: low === 0 && high === 0 ? undefined : { low, high },
  }
}

function layeredIn(record: Buffer): LayeredNode {
  const number = (at: number): number | undefined => Number(record.readBigUInt64LE(at)) || undefined // 0 = none
  return {
    parent: number(LAYERED.parent),
    lower: number(LAYERED.lower),
    origin: number(LAYERED.origin),
    removed: record.readUInt32LE(LAYERED.removed),
    isGone: (record[LAYERED.state] & STATE.GONE) !== 0,
    isPlacing: (record[LAYERED.state] & STATE.PLACING) !== 0,
    handle: record.length > LAYERED.handle ? record.subarray(LAYERED.handle) : undefined,
  }
}

/** The rest of a record of a node, without its handle. */
export function writeLayered(record: Buffer, { parent, lower, origin, removed, isGone, isPlacing }: LayeredNode): void {
  for (const [at, number] of [
    [LAYERED.parent, parent],
    [LAYERED.lower, lower],
    [LAYERED.origin, origin],
  ] as const)
    record.writeBigUInt64LE(BigInt(number ?? 0), at)
  record.writeUInt32LE(removed, LAYERED.removed)
  record[LAYERED.state] = (isGone ? STATE.GONE : 0) | (isPlacing ? STATE.PLACING : 0)
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
