/** `nydus-setup --restart` as it is called on a node: in a mount namespace whose /etc is the test's, with a systemctl that writes down what it is told. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'

const project = join(import.meta.dirname, '..')
const skip: string | false =
  process.getuid?.() !== 0
    ? 'mount namespaces are for root'
    : existsSync(join(project, 'dist/nydus-setup.cjs'))
      ? false
      : 'dist/ is not built (npm run build)'

const HOUR_US = 3_600_000_000

class Node implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'nydus-setup-'))
  readonly #bin = join(this.path, 'bin')

  constructor() {
    for (const name of ['bin', 'etc']) mkdirSync(join(this.path, name))
    this.#program('containerd', 'echo containerd github.com/containerd/containerd v1.7.27 abc')
    this.isStarted('never')
  }

  #program(name: string, body: string): void {
    writeFileSync(join(this.#bin, name), `#!/bin/sh\n${body}\n`)
    chmodSync(join(this.#bin, name), 0o755)
  }

  /** Which start of containerd systemd tells of. */
  isStarted(when: 'never' | 'long ago' | 'in an hour'): void {
    const uptimeUs = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1_000_000
    const offset = { never: -uptimeUs, 'long ago': -Math.min(HOUR_US, uptimeUs - 1), 'in an hour': HOUR_US }
    const at = Math.round(uptimeUs + offset[when])
    this.#program(
      'systemctl',
      `echo "$*" >> '${this.path}/calls'
test "$1" = show && printf 'ActiveState=${when === 'never' ? 'inactive' : 'active'}\\nExecMainStartTimestampMonotonic=${at}\\n'
exit 0`,
    )
  }

  /** What it says, and what systemctl was asked to do. */
  async setup(...args: readonly string[]): Promise<{ readonly said: string; readonly done: readonly string[] }> {
    writeFileSync(join(this.path, 'calls'), '')
    const script = `mount --make-rprivate / &&
mount --bind "$0/etc" /etc &&
PATH="$0/bin:$PATH" exec "$@"`
    const command = [join(project, 'bin/nydus-setup'), '--yes', '--restart', ...args]
    const { stdout, stderr } = await promisify(execFile)(
      'unshare',
      ['--mount', 'sh', '-c', script, this.path, ...command],
      { timeout: 60_000 },
    )
    const calls = readFileSync(join(this.path, 'calls'), 'utf8').split('\n')
    return { said: stdout + stderr, done: calls.filter((call) => call !== '' && !call.startsWith('show ')) }
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

const OURS = ['daemon-reload', 'enable containerd-nydus-grpc.service', 'restart containerd-nydus-grpc.service']

test('--restart restarts containerd when it has not read what is written, and leaves it alone when it has', {
  skip,
  timeout: 180_000,
}, async () => {
  using node = new Node()
  node.isStarted('long ago')
  const first = await node.setup()
  assert.deepEqual(first.done, [...OURS, 'restart containerd'])
  assert.ok(existsSync(join(node.path, 'etc/containerd/config.toml')))
  assert.deepEqual((await node.setup()).done, [...OURS, 'restart containerd'], 'nothing changed, and still not read')
  node.isStarted('in an hour')
  const again = await node.setup()
  assert.match(again.said, /containerd has read its configuration since that was changed: it is not restarted/)
  assert.deepEqual(again.done, OURS)
  node.isStarted('never')
  assert.deepEqual((await node.setup()).done, [...OURS, 'restart containerd'], 'one that does not run')
  node.isStarted('long ago')
  assert.deepEqual((await node.setup('--undo')).done, [
    'stop containerd-nydus-grpc.service',
    'daemon-reload',
    'restart containerd',
  ])
})
