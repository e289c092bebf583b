/** The original's nydusctl and ours ask the same daemon, ours or the original's: they print the same. NYDUS_PEER_DIR names the folder with the original's programs. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { CARRIED_BLOBS, carriedImage, localConfig, Scratch } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { runAllOf } from '../src/cli/testing.ts'
import { PeerDaemon, peers } from './peer-daemon.ts'

const noPrograms = ['nydusctl', 'nydusd'].every((name) => existsSync(join(peers, name)))
  ? undefined
  : 'NYDUS_PEER_DIR names no folder with nydusctl and nydusd'
const skip = whyNoFuse() ?? noPrograms ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const COMMANDS = [
  'info',
  '-r info',
  'metrics cache',
  'metrics backend',
  'metrics fsstats',
  '-r metrics cache',
  'metrics -r backend',
  'metrics fsstats -r',
  'set log-level loud',
  'umount -m /nope',
  'metrics nope',
  'mount -s x -t rafs',
  'metrics backend --interval x',
  'info info',
  'set log-level',
].map((line) => line.split(' '))

async function compare(scratch: Scratch, socket: string): Promise<void> {
  const ours = await runAllOf(
    'nydusctl',
    COMMANDS.map((words) => ['--sock', socket, ...words]),
    scratch.path,
  )
  for (const [index, words] of COMMANDS.entries()) {
    const theirs = spawnSync(join(peers, 'nydusctl'), ['--sock', socket, ...words], {
      cwd: scratch.path,
      encoding: 'utf8',
      env: { ...process.env, RUST_BACKTRACE: '0' },
    })
    const name = words.join(' ')
    assert.equal(ours[index]?.exit, theirs.status, name)
    assert.equal(ours[index]?.stdout, theirs.stdout, name)
    if (!name.includes('interval')) assert.equal(ours[index]?.stderr, theirs.stderr, name)
  }
}

test('they print the same about our daemon', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  writeFileSync(join(scratch.path, 'config.json'), localConfig(CARRIED_BLOBS, scratch.cache))
  const daemon = await scratch.nydusd(['--bootstrap', IMAGE.bootstrap, '--config', 'config.json'])
  for (const path of ['sizes/4096', 'sizes/65536']) readFileSync(join(scratch.mnt, path))
  await compare(scratch, daemon.socket)
})

test("they print the same about the original's daemon", { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const config = join(scratch.path, 'config.json')
  const prefetch = { enable: true, threads_count: 2, prefetch_all: true }
  writeFileSync(config, localConfig(CARRIED_BLOBS, scratch.cache, { fs_prefetch: prefetch }))
  await using peer = await PeerDaemon.start(scratch, ['--bootstrap', IMAGE.bootstrap, '--config', config])
  await sleep(300) // its prefetch ends
  await compare(scratch, peer.socket)
})
