/** A daemon is killed between a change and the note that it was made: a tracer holds it there. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { appendFile, link, mkdir, rename, rmdir, stat, symlink, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { hold, Succession, whyNoHolding } from './test-held.ts'
import { journalOf, Kept, until } from './test-kept.ts'

const skip = whyNoHolding()

/** A change in a directory, and whether the host has it. */
interface Step {
  readonly name: string
  readonly make: (directory: string) => Promise<unknown>
  readonly isMade: (directory: string) => boolean
  /** Notes before the change, that of its beginning among them. */
  readonly notes?: number
}

const STEPS: readonly Step[] = [
  { name: 'mkdir', make: (at) => mkdir(join(at, 'folder')), isMade: (at) => existsSync(join(at, 'folder')) },
  {
    name: 'rename',
    make: (at) => rename(join(at, 'old'), join(at, 'moved')),
    isMade: (at) => existsSync(join(at, 'moved')),
  },
  {
    name: 'append',
    make: (at) => appendFile(join(at, 'one'), ', more'),
    isMade: (at) => textOf(at, 'one') === 'text, more',
    notes: 2, // it is opened first
  },
  {
    name: 'create',
    make: (at) => writeFile(join(at, 'new'), 'new', { flag: 'wx' }),
    isMade: (at) => existsSync(join(at, 'new')),
  },
  { name: 'link', make: (at) => link(join(at, 'one'), join(at, 'link')), isMade: (at) => existsSync(join(at, 'link')) },
  { name: 'symlink', make: (at) => symlink('one', join(at, 'soft')), isMade: (at) => existsSync(join(at, 'soft')) },
  { name: 'unlink', make: (at) => unlink(join(at, 'gone')), isMade: (at) => !existsSync(join(at, 'gone')) },
  { name: 'rmdir', make: (at) => rmdir(join(at, 'empty')), isMade: (at) => !existsSync(join(at, 'empty')) },
]

function textOf(directory: string, name: string): string {
  return readFileSync(join(directory, name), 'utf8')
}

/** A shared directory whose daemons die. */
class Killed extends Kept {
  readonly host = this.folder('host')
  readonly shared = join(this.mnt, 'shared')
  #journal = ''

  async share(pid: number): Promise<void> {
    for (const name of ['one', 'old', 'gone']) writeFileSync(join(this.host, name), 'text')
    mkdirSync(join(this.host, 'empty'))
    await this.mount('/shared', { fs_type: 'passthrough_fs', source: this.host, config: '' })
    this.#journal = await journalOf(pid)
  }

  /** Asks for a change, kills the daemon that has made it and not noted it, and lets another answer. Gives what `next` gives. */
  async over<T>(pid: number, { name, make, isMade, notes = 1 }: Step, next: () => Promise<T>): Promise<T> {
    for (const known of readdirSync(this.host)) await stat(join(this.shared, known)) // or the look at it would be noted too
    const tracer = await hold(pid, this.#journal, notes)
    const ended = once(tracer, 'exit')
    const making = make(this.shared)
    await until(async () => (isMade(this.host) ? true : undefined))
    process.kill(pid, 'SIGKILL')
    tracer.kill('SIGKILL') // who is held dies when nobody holds it
    await ended
    const result = await next()
    await assert.doesNotReject(making, name)
    assert.ok(isMade(this.host), name)
    return result
  }
}

test('changes whose daemon was killed over them are answered by the one that its keeper brings', {
  skip,
  timeout: 240_000,
}, async () => {
  await using killed = new Killed()
  const { child } = await killed.start(['--writable'])
  await killed.keeper()
  await killed.share(child.pid ?? 0)
  let pid = child.pid ?? 0
  for (const step of STEPS.slice(0, 3)) pid = await killed.over(pid, step, () => killed.next(pid))
  assert.deepEqual(readdirSync(killed.host).sort(), ['empty', 'folder', 'gone', 'moved', 'one'])
})

test('changes whose daemon was killed over them are answered by the one that a supervisor brings', {
  skip,
  timeout: 240_000,
}, async () => {
  await using killed = new Killed()
  using succession = new Succession(killed)
  const first = await succession.daemon('api.sock')
  await killed.share(first.child.pid ?? 0)
  await succession.keep(first)
  await succession.follow(first, STEPS.slice(3), (pid, step, next) => killed.over(pid, step, next))
  assert.deepEqual(readdirSync(killed.host).sort(), ['link', 'new', 'old', 'one', 'soft'])
  assert.equal(textOf(killed.host, 'new'), 'new')
  assert.equal(statSync(join(killed.host, 'one')).nlink, 2)
})
