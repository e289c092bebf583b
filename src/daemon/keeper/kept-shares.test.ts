/** Shared directories whose daemon is killed: what was in hand goes on. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { whyNoFuse } from '../../kernel/index.ts'
import { journalOf, Kept, until } from './test-kept.ts'

const skip = whyNoFuse() ?? (process.getuid?.() === 0 ? false : 'needs root to find files by their handles')
const KILLS = 5
/** Makes, renames and removes until `stop` is there; tells each step that fails. It runs in the mount, and starts no program. */
const CHANGES = `
let failed = 0
const { mkdirSync, rmdirSync, writeFileSync, renameSync, unlinkSync, linkSync, symlinkSync, readFileSync, existsSync } = require('node:fs')
for (let n = 0; !existsSync('stop'); n++) {
  for (const step of [
    () => mkdirSync('made'), () => rmdirSync('made'),
    () => writeFileSync('one', 'text ' + n, { flag: 'wx' }), () => linkSync('one', 'link'), () => renameSync('one', 'other'),
    () => { if (readFileSync('other', 'utf8') !== 'text ' + n) throw new Error('wrong text') },
    () => unlinkSync('link'), () => unlinkSync('other'),
    () => symlinkSync('nowhere', 'sym'), () => unlinkSync('sym'),
  ]) try { step() } catch (error) { failed++; console.log(n, error.message) }
}
process.exitCode = failed > 0 ? 1 : 0`

test('a killed daemon of a shared directory comes back: open files, folders and changes under way go on', {
  skip,
  timeout: 300_000,
}, async () => {
  await using kept = new Kept()
  const host = kept.folder('host')
  mkdirSync(join(host, 'deep/er'), { recursive: true })
  for (let index = 0; index < 300; index += 1) writeFileSync(join(host, 'deep', `file ${index}`), `${index}`)
  const daemon = await kept.start(['--writable'])
  await kept.keeper()
  await kept.mount('/shared', { fs_type: 'passthrough_fs', source: host, config: '' })
  const journal = await journalOf(daemon.child.pid ?? 0)
  const shared = join(kept.mnt, 'shared')
  const child = spawn(process.execPath, ['-e', CHANGES], { cwd: shared, stdio: ['ignore', 'pipe', 'inherit'] })
  let told = ''
  child.stdout.on('data', (text) => (told += String(text)))
  const changed = once(child, 'exit')
  const written = await open(join(shared, 'deep/er/written'), 'w+')
  const appended = await open(join(shared, 'appended'), 'a')
  const { ino } = await stat(join(shared, 'deep'))
  let text = ''
  let pid = daemon.child.pid ?? 0
  for (let kill = 0; kill < KILLS; kill += 1) {
    process.kill(pid, 'SIGKILL')
    const line = `after ${kill} kills\n`
    await written.write(line)
    await appended.write(line)
    text += line
    pid = await kept.next(pid)
    assert.equal((await readdir(join(shared, 'deep'))).length, 301)
    assert.equal(await readFile(join(shared, `deep/file ${kill}`), 'utf8'), `${kill}`)
    await sleep(150)
  }
  assert.equal((await stat(join(shared, 'deep'))).ino, ino)
  const back = Buffer.alloc(text.length)
  await written.read(back, 0, back.length, 0)
  assert.equal(back.toString(), text)
  await written.close()
  await appended.close()
  for (const name of ['deep/er/written', 'appended']) assert.equal(readFileSync(join(host, name), 'utf8'), text)
  await writeFile(join(shared, 'stop'), '')
  await changed
  assert.equal(told, '')
  assert.deepEqual(readdirSync(host).sort(), ['appended', 'deep', 'stop'])
  process.kill(pid, 'SIGTERM')
  await kept.isGone()
  assert.ok(!existsSync(journal))
})

test('files that went while no daemon was there are gone, and none is taken for another', {
  skip,
  timeout: 180_000,
}, async () => {
  await using kept = new Kept()
  const host = kept.folder('host')
  for (const name of ['kept', 'gone']) writeFileSync(join(host, name), name)
  const daemon = await kept.start()
  const keeper = await kept.keeper()
  await kept.mount('/shared', { fs_type: 'passthrough_fs', source: host, config: '' })
  const shared = join(kept.mnt, 'shared')
  const [first, second] = [await open(join(shared, 'kept')), await open(join(shared, 'gone'))]
  process.kill(keeper, 'SIGSTOP')
  daemon.child.kill('SIGKILL')
  rmSync(join(host, 'gone'))
  for (let index = 0; index < 50; index += 1) writeFileSync(join(host, `new ${index}`), 'another')
  process.kill(keeper, 'SIGCONT')
  await until(async () => ((await kept.next(daemon.child.pid ?? 0)) > 0 ? true : undefined))
  assert.equal((await first.read(Buffer.alloc(4), 0, 4, 0)).buffer.toString(), 'kept')
  await assert.rejects(second.read(Buffer.alloc(4), 0, 4, 0))
  await first.close()
  await assert.rejects(second.close(), { errno: -116 }) // ESTALE: whoever had it is told
  assert.equal(await readFile(join(shared, 'new 7'), 'utf8'), 'another')
})
