/** For tests: an overlay whose daemons die, one after another. */
import assert from 'node:assert/strict'
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs'
import { join, parse } from 'node:path'
import { FileReply, listXattrs, OPCODE, ownMemoryFolder } from '../../kernel/index.ts'
import { carriedImage } from '../testing.ts'
import { newJournal } from './files-journal.ts'
import type { LowerImage } from './overlay-lower.ts'
import { OverlayTree } from './overlay-tree.ts'
import { type Asked, message } from './test-requests.ts'

const IMAGE = lowerImage()
/** In an answer with attributes, from their beginning: number, size, mode, names. Source: docs/formats/fuse-wire.md, "Attributes". */
const [INO, SIZE, MODE, NLINK] = [0, 8, 60, 64]
const GETATTR_ATTR = 16
export const ESTALE = 116

function lowerImage(): LowerImage {
  const bytes = readFileSync(carriedImage('v6-tar-none-c64k').bootstrap)
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length))
  shared.set(bytes)
  return { bytes: shared, inlinedBlobId: undefined, hot: { blobs: [] } }
}

/** Number, size, mode and count of names by path, or minus an errno. */
export type Attributes = Readonly<Record<string, number | readonly number[]>>

/** An overlay on memory, one daemon after another. */
export class Layers implements Disposable {
  readonly path = mkdtempSync('/dev/shm/nydus overlay ')
  readonly upper = join(this.path, 'upper')
  readonly #journal = newJournal() ?? assert.fail('no journal')
  readonly #reply = new FileReply()
  readonly #nodes = new Map([['', 1]])
  #tree: OverlayTree

  constructor() {
    mkdirSync(this.upper)
    this.#tree = this.#open(false)
    this.#tree.keep(this.#journal)
  }

  #open(isRestored: boolean): OverlayTree {
    return new OverlayTree({
      slot: 1,
      image: IMAGE,
      upper: this.upper,
      work: join(this.path, 'work'),
      isRestored,
      fetch: (ino, offset, count) => Promise.resolve(Buffer.alloc(count, `${ino} at ${offset}, `)),
      readLater: () => assert.fail('nothing is read here'),
      onRead: () => undefined,
    })
  }

  async ask(asked: Asked, isAgain = false): Promise<number> {
    const request = message(asked, isAgain)
    await this.#tree.prepare(request)
    return this.#tree.answer(request, this.#reply)
  }

  /** Number 64 bits of the last answer's body at this place. */
  answered(at: number): number {
    return Number(this.#reply.bytes.readBigUInt64LE(this.#reply.bodyAt + at) & 0xff_ffff_ffff_ffffn)
  }

  /** The node of a path, which the kernel looks up part by part. */
  async node(path: string): Promise<number> {
    const known = this.#nodes.get(path)
    if (known !== undefined) return known
    const { dir, base } = parse(path)
    const rest = `${base}\0`
    const got = await this.ask({ opcode: OPCODE.LOOKUP, node: await this.node(dir), rest, unique: 2 })
    assert.ok(got > 0, `${path}: ${got}`)
    const node = this.answered(0)
    this.#nodes.set(path, node)
    return node
  }

  /** The kernel knows it no more. */
  forget(path: string): void {
    this.#tree.forget(this.#nodes.get(path) ?? assert.fail(path), Number.POSITIVE_INFINITY)
    this.#nodes.delete(path)
  }

  /** This daemon is dead: what it had open is closed, and nothing else is done. */
  async next(): Promise<void> {
    for (const fd of readdirSync('/proc/self/fd').map(Number)) {
      const leads = linkOf(fd)
      if (leads.startsWith(this.path) || leads.endsWith(this.#journal)) closeSync(fd)
    }
    this.#tree = this.#open(true)
    this.#tree.resume(this.#journal, (error) => assert.fail(String(error)))
    await this.#tree.prepare(message({ opcode: OPCODE.GETATTR }, false))
  }

  /** What the kernel is told of the nodes that it knows. */
  async attributes(): Promise<Attributes> {
    const told: Record<string, number | readonly number[]> = {}
    for (const [path, node] of this.#nodes) {
      const got = await this.ask({ opcode: OPCODE.GETATTR, node, size: 16, unique: 4 })
      told[path] = got < 0 ? got : [INO, SIZE].map((at) => this.answered(GETATTR_ATTR + at)).concat(this.#words())
      if (got < 0 && got !== -ESTALE) assert.fail(`${path}: ${got}`)
    }
    return told
  }

  /** Paths by which the kernel still gets to the nodes that it knows. */
  async reached(): Promise<Set<string>> {
    const reached = new Set<string>()
    for (const [path, node] of this.#nodes) {
      const { dir, base } = parse(path)
      const rest = `${base}\0`
      const got = await this.ask({ opcode: OPCODE.LOOKUP, node: this.#nodes.get(dir) ?? 0, rest, unique: 8 })
      if (got > 0 && this.answered(0) === node) reached.add(path)
    }
    return reached
  }

  #words(): number[] {
    return [MODE, NLINK].map((at) => this.#reply.bytes.readUInt32LE(this.#reply.bodyAt + GETATTR_ATTR + at))
  }

  /** Names of the last answer's records, of so many bytes; gives the cookie behind them. Source: docs/formats/fuse-wire.md, "Directories". */
  listed(bytes: number, names: string[]): bigint | undefined {
    const records = this.#reply.bytes.subarray(this.#reply.bodyAt, this.#reply.bodyAt + bytes)
    let behind: bigint | undefined
    for (let at = 0; at < bytes; ) {
      const length = records.readUInt32LE(at + 16)
      behind = records.readBigUInt64LE(at + 8)
      names.push(records.toString('latin1', at + 24, at + 24 + length))
      at += Math.ceil((24 + length) / 8) * 8
    }
    return behind
  }

  handles(): number {
    return readdirSync('/proc/self/fd').filter((fd) => linkOf(Number(fd)).startsWith(this.path)).length
  }

  /** Everything in the upper directory. */
  get content(): string[] {
    return readdirSync(this.upper, { recursive: true, encoding: 'utf8' })
      .sort()
      .map((name) => describe(join(this.upper, name), name))
  }

  get leftInWork(): string[] {
    return readdirSync(join(this.path, 'work/nydusd'))
  }

  [Symbol.dispose](): void {
    this.#tree.end()
    rmSync(this.path, { recursive: true })
    assert.ok(!existsSync(join(ownMemoryFolder('nydus') ?? '', this.#journal)))
  }
}

function linkOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return '' // that of the listing itself
  }
}

function describe(path: string, name: string): string {
  const { mode, nlink, size, rdev, mtimeMs, uid } = lstatSync(path)
  const isFile = (mode & 0o170000) === 0o100000
  const isDirectory = (mode & 0o170000) === 0o040000
  const marks = listXattrs(path).map((one) =>
    [one.name, one.value].map((part) => Buffer.from(part).toString()).join('='),
  )
  const bytes = isFile ? readFileSync(path).toString('latin1') : ''
  // what was made just now has another time each time
  const time = mtimeMs < 1_600_000_000_000 ? mtimeMs : 'now'
  return [name, mode.toString(8), isDirectory ? '' : [nlink, size, rdev], uid, time, ...marks.sort(), bytes].join(' ')
}
