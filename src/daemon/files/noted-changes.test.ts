/** A process dies between a change and the note that it was made: what stands in the journal is what the change's beginning left there. */
import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  ERRNO,
  FILE_OPCODE,
  FileReply,
  listXattrs,
  O,
  OPCODE,
  OPEN_IN,
  ownMemoryFolder,
  RENAME,
  setXattr,
  WRITE_IN,
} from '../../kernel/index.ts'
import { BEGUN, RECORD } from './files-in-hand.ts'
import { newJournal } from './files-journal.ts'
import { HostTree } from './host-tree.ts'
import {
  type Asked,
  create,
  link,
  message,
  mkdir,
  mknod,
  removexattr,
  rename,
  rmdir,
  setxattr,
  symlink,
  unlink,
} from './test-requests.ts'

const skip =
  ownMemoryFolder('nydus') === undefined
    ? 'there is no memory file system at /dev/shm'
    : process.getuid?.() === 0
      ? false
      : 'needs root to find files by their handles'
const BEGUN_BYTES = RECORD.rest + BEGUN.size
const ENOTEMPTY = 39
const ENTRY_BYTES = 128

function leads(fd: string, folder: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder)
  } catch {
    return false // that of the listing itself
  }
}

/** One shared directory, one process after another. */
class Shared implements Disposable {
  readonly host = mkdtempSync(join(tmpdir(), 'host changes '))
  readonly #journal = newJournal() ?? assert.fail('no journal')
  readonly journal = join(ownMemoryFolder('nydus') ?? '', this.#journal)
  #tree = new HostTree(1, this.host, () => undefined)
  readonly #reply = new FileReply()

  constructor() {
    this.#tree.keep(this.#journal)
  }

  path(name: string): string {
    return join(this.host, name)
  }

  ask(asked: Asked, isAgain = false): number {
    return this.#tree.answer(message(asked, isAgain), this.#reply)
  }

  /** Number 32 bits of the last answer's body at this place. */
  answered(at: number): number {
    return this.#reply.bytes.readUInt32LE(this.#reply.bodyAt + at)
  }

  /** The node of a file. */
  node(name: string): number {
    assert.ok(this.ask({ opcode: OPCODE.LOOKUP, rest: `${name}\0` }) > 0)
    return this.answered(0) + (this.answered(4) & 0xff_ffff) * 2 ** 32
  }

  /** Asks for the change; then the process dies, with only its beginning noted. `meanwhile`: what the host does before the next process is there. */
  die(asked: Asked, meanwhile: () => void = () => undefined, result?: number): void {
    const before = statSync(this.journal).size
    const got = this.ask(asked)
    if (result === undefined) assert.ok(got >= 0, `operation ${asked.opcode}: ${got}`)
    else assert.equal(got, result)
    meanwhile()
    truncateSync(this.journal, before + BEGUN_BYTES)
    this.next()
  }

  next(): void {
    this.#tree.leave()
    this.#tree = new HostTree(1, this.host, () => undefined)
    this.#tree.resume(this.#journal)
  }

  [Symbol.dispose](): void {
    this.#tree.end()
    rmSync(this.host, { recursive: true })
  }
}

test('what was made and not noted is answered as made: folders, nodes, links, files', { skip }, () => {
  for (const asked of [mkdir, mknod, symlink, create(0), create(O.EXCL)]) {
    using shared = new Shared()
    shared.die(asked)
    const { ino } = lstatSync(shared.path('new'))
    assert.ok(shared.ask(asked, true) > 0, `operation ${asked.opcode}`)
    assert.equal(lstatSync(shared.path('new')).ino, ino)
    assert.deepEqual(readdirSync(shared.host), ['new'])
    shared.next() // and it is noted then, if that process dies too
    assert.ok(shared.ask(asked, true) > 0, `operation ${asked.opcode}, once more`)
  }
  using shared = new Shared()
  writeFileSync(shared.path('old'), 'text')
  const asked = link(shared.node('old'))
  shared.die(asked)
  assert.ok(shared.ask(asked, true) > 0)
  assert.equal(lstatSync(shared.path('old')).nlink, 2)
})

test('a takeover after the clock was set back gives no number twice', { skip }, (t) => {
  using shared = new Shared()
  const names = ['one', 'two', 'three']
  for (const name of [...names, 'late']) writeFileSync(shared.path(name), name)
  const known = names.map((name) => shared.node(name))
  t.mock.timers.enable({ apis: ['Date'], now: 0 })
  shared.next()
  assert.ok(!known.includes(shared.node('late')))
  assert.deepEqual(
    names.map((name) => shared.node(name)),
    known,
  )
})

test('what was begun and not made is made', { skip }, () => {
  for (const asked of [mkdir, mknod, symlink, create(O.EXCL)]) {
    using shared = new Shared()
    shared.die(asked, () => rmSync(shared.path('new'), { recursive: true }))
    assert.ok(shared.ask(asked, true) > 0, `operation ${asked.opcode}`)
    assert.deepEqual(readdirSync(shared.host), ['new'])
  }
  using shared = new Shared()
  writeFileSync(shared.path('old'), 'text')
  linkSync(shared.path('old'), shared.path('kept'))
  shared.die(unlink, () => linkSync(shared.path('kept'), shared.path('old'))) // the same file
  assert.equal(shared.ask(unlink, true), 0)
  assert.deepEqual(readdirSync(shared.host), ['kept'])
  mkdirSync(shared.path('old/full'), { recursive: true })
  shared.die(rmdir, () => rmdirSync(shared.path('old/full')), -ENOTEMPTY)
  assert.equal(shared.ask(rmdir, true), 0)
  mkdirSync(shared.path('old'))
  shared.die(rename(), () => renameSync(shared.path('new'), shared.path('old')))
  assert.equal(shared.ask(rename(), true), 0)
  assert.deepEqual(readdirSync(shared.host), ['kept', 'new'])
})

test('what was removed or renamed and not noted is answered as done, and what came to its name since stays', {
  skip,
}, () => {
  for (const comes of [false, true]) {
    using shared = new Shared()
    const others = (): void => (comes ? writeFileSync(shared.path('old'), 'another') : undefined)
    writeFileSync(shared.path('old'), 'text')
    shared.die(unlink, others)
    assert.equal(shared.ask(unlink, true), 0)
    assert.equal(existsSync(shared.path('old')), comes)
    rmSync(shared.path('old'), { force: true })
    mkdirSync(shared.path('old'))
    shared.die(rmdir, others)
    assert.equal(shared.ask(rmdir, true), 0)
    assert.equal(existsSync(shared.path('old')), comes)
    writeFileSync(shared.path('old'), 'text')
    writeFileSync(shared.path('new'), 'overwritten')
    shared.die(rename(), others)
    assert.equal(shared.ask(rename(), true), 0)
    assert.equal(readFileSync(shared.path('new'), 'utf8'), 'text')
    assert.equal(existsSync(shared.path('old')), comes)
  }
  using shared = new Shared()
  writeFileSync(shared.path('old'), 'one')
  writeFileSync(shared.path('new'), 'two')
  shared.die(rename(RENAME.EXCHANGE))
  assert.equal(shared.ask(rename(RENAME.EXCHANGE), true), 0)
  assert.deepEqual(
    ['old', 'new'].map((name) => readFileSync(shared.path(name), 'utf8')),
    ['two', 'one'],
  )
  shared.die(unlink, () => undefined)
  shared.next() // a process that dies before it is asked leaves the note to the one after it
  assert.equal(shared.ask(unlink, true), 0)
})

test('what the host made under the name since is not handed out as new', { skip }, async () => {
  const older = new Shared()
  writeFileSync(older.path('older'), '')
  await sleep(100) // files are dated by the kernel's ticks
  const instead = (shared: Shared, make: (path: string) => void) => (): void => {
    rmSync(shared.path('new'), { recursive: true })
    make(shared.path('new'))
  }
  for (const [asked, make] of [
    [mkdir, (path: string): void => writeFileSync(path, '')],
    [mkdir, (path: string): void => chownSync(mkdirSync(path, { recursive: true }) ?? path, 5, 5)],
    [mkdir, (path: string): void => chmodSync(mkdirSync(path, { recursive: true }) ?? path, 0o777)],
    [mknod, (path: string): void => writeFileSync(path, '')],
    [symlink, (path: string): void => symlinkSync('elsewhere', path)],
    [symlink, (path: string): void => symlinkSync('target, and more', path)],
    [create(O.EXCL), (path: string): void => writeFileSync(path, 'secret', { mode: 0o600 })],
    [create(O.EXCL), (path: string): void => symlinkSync('/etc/shadow', path)],
    [create(O.EXCL), (path: string): void => renameSync(older.path('older'), path)],
  ] as const) {
    using shared = new Shared()
    shared.die(asked, instead(shared, make))
    const { ino } = lstatSync(shared.path('new'))
    assert.equal(shared.ask(asked, true), -ERRNO.EEXIST, `operation ${asked.opcode}`)
    assert.equal(lstatSync(shared.path('new')).ino, ino)
  }
  older[Symbol.dispose]()
  using shared = new Shared()
  shared.die(
    create(0),
    instead(shared, (path) => writeFileSync(path, 'secret')),
  )
  assert.equal(shared.ask(create(0), true), -ERRNO.ESTALE) // the kernel looks again
  writeFileSync(shared.path('old'), 'text')
  const asked = link(shared.node('old'))
  rmSync(shared.path('new'))
  shared.die(
    asked,
    instead(shared, (path) => writeFileSync(path, 'another')),
  )
  assert.equal(shared.ask(asked, true), -ERRNO.EEXIST)
})

test('a change that failed is told as it failed, and what was there before is not taken for made', { skip }, () => {
  using shared = new Shared()
  mkdirSync(shared.path('new'))
  assert.equal(shared.ask(mkdir), -ERRNO.EEXIST)
  shared.next()
  rmdirSync(shared.path('new'))
  assert.equal(shared.ask(mkdir, true), -ERRNO.EEXIST)
  mkdirSync(shared.path('new'))
  shared.die(mkdir, undefined, -ERRNO.EEXIST)
  assert.equal(shared.ask(mkdir, true), -ERRNO.EEXIST)
  shared.die(unlink, undefined, -ERRNO.ENOENT)
  assert.equal(shared.ask(unlink, true), -ERRNO.ENOENT)
})

test('what was appended is not appended twice', { skip }, () => {
  for (const [is, became] of [
    ['1234', '1234more'],
    ['1234more', '1234more'],
    ['1234mo', '1234more'],
    ['1234more and others', '1234more and others'],
    ['1234others', '1234othersmore'],
    ['1', '1more'],
  ]) {
    using shared = new Shared()
    writeFileSync(shared.path('old'), '1234')
    const node = shared.node('old')
    assert.ok(shared.ask({ opcode: OPCODE.OPEN, node, size: OPEN_IN.size, head: { [OPEN_IN.flags]: O.WRONLY } }) > 0)
    const head = { [WRITE_IN.handle]: shared.answered(0), [WRITE_IN.count]: 4, [WRITE_IN.flags]: O.APPEND }
    const write = { opcode: FILE_OPCODE.WRITE, node, size: WRITE_IN.size, head, rest: 'more' }
    shared.die(write, () => writeFileSync(shared.path('old'), is ?? ''))
    assert.ok(shared.ask(write, true) > 0)
    assert.equal(shared.answered(0), 4)
    assert.equal(readFileSync(shared.path('old'), 'utf8'), became)
    shared.next()
    assert.ok(shared.ask(write, true) > 0)
    assert.equal(readFileSync(shared.path('old'), 'utf8'), became)
  }
})

test('an attribute that was set or removed is answered as it was', { skip }, (t) => {
  using shared = new Shared()
  const path = shared.path('old')
  writeFileSync(path, 'text')
  try {
    setXattr(path, 'user.other', Buffer.from('x'))
  } catch {
    t.skip('the file system of temporary files has no attributes')
    return
  }
  const node = shared.node('old')
  shared.die(setxattr(node))
  assert.equal(shared.ask(setxattr(node), true), 0)
  shared.die(setxattr(node), undefined, -ERRNO.EEXIST)
  assert.equal(shared.ask(setxattr(node), true), -ERRNO.EEXIST)
  shared.die(removexattr(node))
  assert.equal(shared.ask(removexattr(node), true), 0)
  assert.deepEqual(
    listXattrs(path).map(({ name }) => Buffer.from(name).toString()),
    ['user.other'],
  )
  shared.die(removexattr(node), undefined, -ERRNO.ENODATA)
  assert.equal(shared.ask(removexattr(node), true), -ERRNO.ENODATA)
})

test('an open file whose OPEN, OPENDIR or CREATE is handed out again is open once, and closed by its RELEASE', {
  skip,
}, () => {
  using shared = new Shared()
  writeFileSync(shared.path('old'), 'text')
  const held = (): number => readdirSync('/proc/self/fd').filter((fd) => leads(fd, shared.host)).length
  const opens: Array<readonly [asked: Asked, handleAt: number]> = [
    [{ opcode: OPCODE.OPEN, node: shared.node('old'), size: OPEN_IN.size, head: { [OPEN_IN.flags]: O.RDWR } }, 0],
    [{ opcode: OPCODE.OPENDIR, size: OPEN_IN.size }, 0],
    [create(O.EXCL), ENTRY_BYTES],
  ]
  for (const [index, [asked, at]] of opens.entries()) {
    const unique = 100 + index * 2
    assert.ok(shared.ask({ ...asked, unique }) > 0)
    const handle = shared.answered(at)
    shared.next()
    const before = held()
    for (let times = 0; times < 3; times += 1) {
      assert.ok(shared.ask({ ...asked, unique }, true) > 0)
      assert.equal(shared.answered(at), handle)
    }
    assert.equal(held(), before, `operation ${asked.opcode}`)
    assert.equal(shared.ask({ opcode: OPCODE.RELEASE, size: 24, head: { 0: handle }, unique: 300 }), 0)
    assert.equal(held(), before - 1, `operation ${asked.opcode}`)
  }
})
