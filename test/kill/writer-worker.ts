/** A process that changes a directory of a mount in every way, knows what must have become of it, and compares names, attributes and every byte, until SIGTERM. Then it tells what it saw, as a line of JSON. */
import {
  appendFileSync,
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { listXattrs, setXattr } from '../../src/kernel/index.ts'

/** What a writer tells. */
export interface WriterReport {
  /** By kind, how often it was done. */
  readonly steps: Readonly<Record<string, number>>
  readonly wrong: readonly string[]
  readonly errors: readonly string[]
}

/** A file as it must be; all its names lead to this. */
interface Known {
  bytes: Buffer
  mode: number
  ino: number
  note: string | undefined
  names: number
  /** By any of its names: perhaps it is a copy by now, or never was in the image. */
  isChanged: boolean
}

const MOST_TOLD = 20
const MOST_BYTES = 40_000
const NOTE = 'user.note'

const [mount = '', source = ''] = process.argv.slice(2)
const wrong: string[] = []
const errors: string[] = []
const steps: Record<string, number> = {}
const files = new Map<string, Known>()
const folders = new Map<string, Set<string>>()
let [last, isEnding] = [0, false]
process.on('SIGTERM', () => (isEnding = true))

const at = (name: string): string => join(mount, name)
const fresh = (): string => `new ${++last}`
const below = (limit: number): number => Math.floor(Math.random() * limit)
const someBytes = (): Buffer => Buffer.alloc(1 + below(5000), `${++last} `)

function check(isRight: boolean, what: string): void {
  if (!isRight && wrong.length < MOST_TOLD) wrong.push(what)
}

function some(): [name: string, file: Known] {
  const names = [...files]
  return names[below(names.length)] ?? ['', create()]
}

function create(name = fresh()): Known {
  const bytes = someBytes()
  writeFileSync(at(name), bytes, { flag: 'wx', mode: 0o640 })
  const known = { bytes, mode: 0o640, ino: lstatSync(at(name)).ino, note: undefined, names: 1, isChanged: true }
  files.set(name, known)
  return known
}

function lose(name: string): void {
  const file = files.get(name)
  if (file !== undefined) file.names--
  files.delete(name)
}

function compare(name: string, file: Known): void {
  const { ino, mode, nlink, size } = lstatSync(at(name))
  check(ino === file.ino, `${name}: number ${ino}, was ${file.ino}`)
  check((mode & 0o7777) === file.mode, `${name}: mode ${mode.toString(8)}, wanted ${file.mode.toString(8)}`)
  check(nlink === file.names, `${name}: ${nlink} names, wanted ${file.names}`)
  check(size === file.bytes.length, `${name}: ${size} bytes, wanted ${file.bytes.length}`)
  check(readFileSync(at(name)).equals(file.bytes), `${name}: other bytes`)
  if (file.note !== undefined)
    check(noteOf(name) === file.note, `${name}: attribute ${noteOf(name)}, wanted ${file.note}`)
}

function noteOf(name: string): string {
  const found = listXattrs(at(name)).find((one) => Buffer.from(one.name).toString() === NOTE)
  return Buffer.from(found?.value ?? []).toString()
}

/** Changes through a handle that is open before and after other changes of the same file. */
function throughHandle(name: string, file: Known): void {
  const fd = openSync(at(name), constants.O_RDWR)
  try {
    const piece = someBytes()
    const offset = below(file.bytes.length + 100)
    const back = Buffer.alloc(file.bytes.length)
    check(
      readSync(fd, back, 0, back.length, 0) === back.length && back.equals(file.bytes),
      `${name}: other bytes, open`,
    )
    chmodSync(at(name), 0o600)
    file.mode = 0o600
    writeSync(fd, piece, 0, piece.length, offset)
    const bytes = Buffer.alloc(Math.max(file.bytes.length, offset + piece.length))
    file.bytes.copy(bytes)
    piece.copy(bytes, offset)
    file.bytes = bytes
    if (below(4) === 0) fsyncSync(fd)
    check(fstatSync(fd).size === bytes.length, `${name}: other size, open`)
  } finally {
    closeSync(fd)
  }
}

/** A file that loses its last name while it is open, and which nobody has changed: the image has it. */
function openedAndRemoved(): void {
  const name = readdirSync(source).find((one) => files.get(one)?.names === 1 && files.get(one)?.isChanged === false)
  const file = name === undefined ? undefined : files.get(name)
  if (name === undefined || file === undefined) return
  const fd = openSync(at(name), constants.O_RDONLY | constants.O_DIRECT)
  try {
    unlinkSync(at(name))
    lose(name)
    for (let tries = 0; tries < 3; tries++) {
      const back = Buffer.alloc(MOST_BYTES)
      const got = readSync(fd, back, 0, back.length, 0)
      check(back.subarray(0, got).equals(file.bytes), `${name}: other bytes, removed`)
    }
  } finally {
    closeSync(fd)
  }
}

const STEPS: Readonly<Record<string, (name: string, file: Known) => void>> = {
  create: () => void create(),
  append: (name, file) => {
    const piece = someBytes()
    appendFileSync(at(name), piece)
    file.bytes = Buffer.concat([file.bytes, piece])
    if (file.bytes.length > MOST_BYTES) STEPS['truncate']?.(name, file)
  },
  truncate: (name, file) => {
    const size = below(file.bytes.length + 1)
    truncateSync(at(name), size)
    file.bytes = Buffer.from(file.bytes.subarray(0, size))
  },
  handle: throughHandle,
  chmod: (name, file) => {
    file.mode = 0o600 + below(0o100)
    chmodSync(at(name), file.mode)
  },
  attribute: (name, file) => {
    file.note = `note ${++last}`
    setXattr(at(name), NOTE, Buffer.from(file.note))
  },
  rename: (name, file) => {
    const to = fresh()
    renameSync(at(name), at(to))
    files.delete(name)
    files.set(to, file)
  },
  replace: (name, file) => {
    const [over, other] = some()
    if (other === file) return
    renameSync(at(name), at(over))
    lose(over)
    files.delete(name)
    files.set(over, file)
  },
  link: (name, file) => {
    const to = fresh()
    linkSync(at(name), at(to))
    file.names++
    files.set(to, file)
  },
  unlink: (name) => {
    unlinkSync(at(name))
    lose(name)
    check(!existsSync(at(name)), `${name}: is there again`)
  },
  removed: openedAndRemoved,
  symlink: () => {
    const name = fresh()
    symlinkSync(`to ${name}`, at(name))
    check(readlinkSync(at(name)) === `to ${name}`, `${name}: another target`)
    unlinkSync(at(name))
  },
  folder: () => {
    const name = fresh()
    mkdirSync(at(name))
    folders.set(name, new Set())
    for (let count = below(5); count > 0; count--) {
      const inner = fresh()
      writeFileSync(at(`${name}/${inner}`), inner, { flag: 'wx' })
      folders.get(name)?.add(inner)
    }
  },
  emptied: () => {
    const [found] = folders
    if (found === undefined) return
    const [name, inner] = found
    check(same(readdirSync(at(name)), [...inner]), `${name}: other names`)
    for (const one of inner) {
      check(readFileSync(at(`${name}/${one}`), 'utf8') === one, `${name}/${one}: other bytes`)
      unlinkSync(at(`${name}/${one}`))
    }
    rmdirSync(at(name))
    folders.delete(name)
  },
  list: () => compareNames(),
  read: compare,
}

function compareNames(): void {
  const names = readdirSync(mount)
  check(
    same(names, [...files.keys(), ...folders.keys()]),
    `other names: ${names.length}, wanted ${files.size + folders.size}`,
  )
}

function same(found: readonly string[], wanted: readonly string[]): boolean {
  return found.toSorted().join('/') === wanted.toSorted().join('/')
}

/** The image's files, of which some have two names. */
function begin(): void {
  const byNumber = new Map<number, Known>()
  for (const name of readdirSync(source)) {
    const { ino, mode } = lstatSync(join(source, name))
    const known = byNumber.get(ino) ?? {
      bytes: readFileSync(join(source, name)),
      mode: mode & 0o7777,
      ino: lstatSync(at(name)).ino,
      note: undefined,
      names: 0,
      isChanged: false,
    }
    known.names++
    byNumber.set(ino, known)
    files.set(name, known)
  }
}

function step(): void {
  const kinds = Object.keys(STEPS)
  const kind = kinds[below(kinds.length)] ?? ''
  const [name, file] = some()
  try {
    file.isChanged ||= kind !== 'removed' && kind !== 'read' && kind !== 'list'
    STEPS[kind]?.(name, file)
    steps[kind] = (steps[kind] ?? 0) + 1
    if (files.get(name) === file) compare(name, file)
  } catch (error) {
    errors.push(`${kind} of ${name}: ${String(error)}`)
    isEnding ||= errors.length > MOST_TOLD
  }
}

begin()
/** On a machine that is slow it goes on until it has done more than so many kinds of steps. */
const FEWEST_KINDS = 10
const isDone = (): boolean => errors.length > MOST_TOLD || Object.keys(steps).length > FEWEST_KINDS

while (!isEnding || !isDone()) {
  step()
  await turn()
}
try {
  compareNames()
  for (const [name, file] of files) compare(name, file)
} catch (error) {
  errors.push(`at the end: ${String(error)}`)
}
process.stdout.write(`${JSON.stringify({ steps, wrong, errors } satisfies WriterReport)}\n`)
