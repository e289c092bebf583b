/** A daemon of an overlay is killed between a change and the note that it was made: a tracer holds it there. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { appendFileSync, chmodSync, existsSync, lstatSync, readdirSync, readFileSync, unlinkSync } from 'node:fs'
import { appendFile, link, mkdir, readFile, rename, stat, symlink, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { decodeState, encodeState } from '../handover/session-state.ts'
import { CARRIED_BLOBS } from '../testing.ts'
import { hold, Succession, whyNoHolding } from './test-held.ts'
import { journalOf, Kept, until } from './test-kept.ts'

const skip = whyNoHolding()

/** A change in a directory of the image, and whether the upper directory has it. */
interface Step {
  readonly name: string
  readonly make: (directory: string) => Promise<unknown>
  readonly isMade: (upper: string) => boolean
  /** Notes before the change: of its beginning, of a file that is opened, of one that is copied. */
  readonly notes?: number
}

const STEPS: readonly Step[] = [
  {
    name: 'rename',
    make: (at) => rename(join(at, '4096'), join(at, 'moved')),
    isMade: (at) => existsSync(join(at, 'moved')),
    notes: 2,
  },
  {
    name: 'append',
    make: (at) => appendFile(join(at, '4097'), 'more'),
    isMade: (at) => existsSync(join(at, '4097')) && lstatSync(join(at, '4097')).size === 4101,
    notes: 3,
  },
  { name: 'unlink', make: (at) => unlink(join(at, '1')), isMade: (at) => existsSync(join(at, '1')) },
  { name: 'mkdir', make: (at) => mkdir(join(at, 'folder')), isMade: (at) => existsSync(join(at, 'folder')) },
  {
    name: 'create over a removed one',
    make: (at) => writeFile(join(at, '1'), 'new', { flag: 'wx' }),
    isMade: (at) => lstatSync(join(at, '1')).isFile(),
  },
  {
    name: 'link',
    make: (at) => link(join(at, '4095'), join(at, 'link')),
    isMade: (at) => existsSync(join(at, 'link')),
    notes: 2,
  },
  {
    name: 'symlink',
    make: (at) => symlink('4095', join(at, 'soft')),
    isMade: (at) => readdirSync(at).includes('soft'),
  },
  {
    name: 'unlink a copy',
    make: (at) => unlink(join(at, '4097')),
    isMade: (at) => lstatSync(join(at, '4097')).isCharacterDevice(),
  },
]

const NAMES = ['1', '4095', '4096', '4097', 'moved', 'folder', 'link', 'soft']

/** An overlay whose daemons die. */
class Killed extends Kept {
  readonly upper = this.folder('upper')
  readonly shown = join(this.mnt, 'overlay/sizes')
  #journal = ''

  async overlay(pid: number): Promise<void> {
    const config = JSON.stringify({
      version: 2,
      backend: { type: 'localfs', localfs: { dir: CARRIED_BLOBS } },
      cache: { type: 'blobcache', filecache: { work_dir: this.cache } },
      rafs: { enable_xattr: true },
      overlay: { upper_dir: this.upper, work_dir: this.folder('work') },
    })
    await this.mount('/overlay', { config })
    this.#journal = await journalOf(pid)
    chmodSync(this.shown, 0o755) // it is copied now
  }

  /** Asks for a change, kills the daemon that has made it and not noted it, and lets another answer. Gives what `next` gives. */
  async over<T>(pid: number, { name, make, isMade, notes = 1 }: Step, next: () => Promise<T>): Promise<T> {
    const numbers = await this.numbers()
    const tracer = await hold(pid, this.#journal, notes)
    const ended = once(tracer, 'exit')
    const making = make(this.shown)
    await until(async () => (isMade(join(this.upper, 'sizes')) ? true : undefined))
    process.kill(pid, 'SIGKILL')
    tracer.kill('SIGKILL') // who is held dies when nobody holds it
    await ended
    const result = await next()
    await assert.doesNotReject(making, name)
    const after = await this.numbers()
    for (const [path, ino] of numbers) if (after.has(path)) assert.equal(after.get(path), ino, `${name}: ${path}`)
    return result
  }

  /** Also makes the kernel know all files, or the look at them would be noted when a daemon is held; so would the end of a listing. */
  async numbers(): Promise<Map<string, number>> {
    const numbers = new Map<string, number>()
    for (const path of NAMES) {
      const found = await stat(join(this.shown, path)).catch(() => undefined) // it is not there, yet or any more
      if (found !== undefined) numbers.set(path, found.ino)
    }
    return numbers
  }
}

test('changes of an overlay whose daemon was killed over them are answered by the one that its keeper brings', {
  skip,
  timeout: 240_000,
}, async () => {
  await using killed = new Killed()
  const { child } = await killed.start(['--writable'])
  await killed.keeper()
  await killed.overlay(child.pid ?? 0)
  const text = await readFile(join(killed.shown, '4096'))
  let pid = child.pid ?? 0
  for (const step of STEPS.slice(0, 4)) pid = await killed.over(pid, step, () => killed.next(pid))
  assert.ok(readFileSync(join(killed.shown, 'moved')).equals(text))
  assert.equal((await readFile(join(killed.shown, '4097'), 'latin1')).slice(-4), 'more')
  assert.ok(!existsSync(join(killed.shown, '1')) && !existsSync(join(killed.shown, '4096')))
  assert.deepEqual(readdirSync(join(killed.path, 'work/nydusd')), [])
})

test('changes of an overlay whose daemon was killed over them are answered by the one that a supervisor brings', {
  skip,
  timeout: 240_000,
}, async () => {
  await using killed = new Killed()
  using succession = new Succession(killed)
  const first = await succession.daemon('api.sock')
  await killed.overlay(first.child.pid ?? 0)
  await succession.keep(first)
  unlinkSync(join(killed.shown, '1'))
  appendFileSync(join(killed.shown, '4097'), 'more')
  await succession.follow(first, STEPS.slice(4), (pid, step, next) => killed.over(pid, step, next))
  assert.equal(readFileSync(join(killed.shown, '1'), 'utf8'), 'new')
  assert.equal(lstatSync(join(killed.shown, 'link')).nlink, 2)
  assert.ok(!existsSync(join(killed.shown, '4097')))

  const { state, device } = succession.supervisor.kept ?? assert.fail()
  const session = decodeState(state)
  const mounts = session.mounts.map((mount) => ({ ...mount, kind: 'rafs' as const }))
  const fresh = await succession.daemon('other.sock', '--upgrade')
  const foreign = { state: encodeState({ ...session, mounts }), device }
  const answer = await succession.supervisor.offer(() => fresh.api('PUT', '/api/v1/daemon/fuse/takeover'), foreign)
  assert.deepEqual([answer.status, /with an overlay/.test(answer.text)], [500, true], 'as the original writes it')
})
