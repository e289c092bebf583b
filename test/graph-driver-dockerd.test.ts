/** The graph driver under a dockerd that still has plugins (up to 23): images are pulled, run, changed, built, saved and removed. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { testWorld } from '../src/convert/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { dockerImage } from './beside/docker-image.ts'
import { DriverUnderTest } from './beside/graph-driver.ts'
import { PrivateContainerd } from './beside/private-containerd.ts'
import { whyNoContainers } from './node/why-no-node.ts'

const DEADLINE_MS = 60_000
const version = Number(
  /version (\d+)\./.exec(spawnSync('dockerd', ['--version'], { encoding: 'utf8' }).stdout ?? '')?.[1],
)
const skip =
  whyNoContainers() ||
  whyNoFuse() ||
  (spawnSync('docker', ['--version']).error !== undefined && 'docker is not installed') ||
  (Number.isNaN(version) && 'dockerd is not installed') ||
  (version > 23 && `dockerd ${version} has no graph driver plugins`)

/** dockerd with the driver under test, which it finds by the name of its socket. */
class Docker implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #host: string
  readonly #log: string

  constructor(node: PrivateContainerd, driver: DriverUnderTest, name: string) {
    this.#host = `unix://${join(node.path, 'd.sock')}`
    this.#log = join(node.path, 'dockerd.log')
    const log = openSync(this.#log, 'a')
    const at = (option: string, path: string): string[] => [`--${option}`, join(node.path, path)]
    const args = ['--experimental', '--storage-driver', name, '--containerd', node.address, '-H', this.#host]
    const alone = ['--bridge', 'none', '--iptables=false', '--ip6tables=false', '--cgroup-parent', '/nydus-test']
    const places = [
      '--data-root',
      join(driver.path, 'data'),
      ...at('exec-root', 'exec'),
      ...at('pidfile', 'docker.pid'),
    ]
    this.#child = spawn('dockerd', [...args, ...alone, ...places], { stdio: ['ignore', log, log], detached: true })
    closeSync(log)
  }

  async run(...args: readonly string[]): Promise<string> {
    const env = { ...process.env, DOCKER_BUILDKIT: '0' }
    const given = ['-H', this.#host, ...args]
    return (await promisify(execFile)('docker', given, { timeout: DEADLINE_MS, env, maxBuffer: 1 << 28 })).stdout
  }

  async ready(): Promise<void> {
    for (const until = Date.now() + DEADLINE_MS; ; await sleep(200))
      try {
        await this.run('version')
        return
      } catch (error) {
        if (Date.now() > until || this.#child.exitCode !== null)
          throw new Error(readFileSync(this.#log, 'utf8'), { cause: error })
      }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null) {
      const ended = once(this.#child, 'exit')
      this.#child.kill('SIGTERM')
      await Promise.race([ended, sleep(DEADLINE_MS, undefined, { ref: false })])
      this.#child.kill('SIGKILL')
    }
  }
}

test('dockerd runs ordinary images and Nydus images by the driver', { skip }, async (t) => {
  await using world = await testWorld()
  const image = await dockerImage(world)
  await using driver = await DriverUnderTest.start()
  const name = `nydus-test-${process.pid}`
  mkdirSync('/etc/docker/plugins', { recursive: true })
  writeFileSync(`/etc/docker/plugins/${name}.spec`, `unix://${driver.socket}`)
  t.after(() => rmSync(`/etc/docker/plugins/${name}.spec`, { force: true }))
  await using node = await PrivateContainerd.start()
  await using docker = new Docker(node, driver, name)
  await docker.ready()
  assert.match(await docker.run('info'), new RegExp(`Storage Driver: ${name}`))
  for (const [tag, isNydus] of [
    ['plain', false],
    ['docker', true],
  ] as const) {
    const reference = `${world.server.host}/app:${tag}`
    await docker.run('pull', reference)
    const run = (...args: readonly string[]): Promise<string> =>
      docker.run('run', '--network', 'host', ...args.slice(0, -1), '/bin/sh', '-c', args.at(-1) ?? '')
    assert.equal(await run('--rm', reference, 'sha256sum /data/*'), image.sums, tag)
    await run('--name', tag, reference, 'echo new > /data/new; rm /data/01; mkdir /made')
    assert.equal(await docker.run('diff', tag), 'C /data\nD /data/01\nA /data/new\nA /made\n')
    await docker.run('commit', tag, `derived:${tag}`)
    assert.equal(await run('--rm', `derived:${tag}`, 'cat /data/new; ls /data | wc -l'), 'new\n24\n')
    const context = join(node.path, tag)
    mkdirSync(context)
    writeFileSync(
      join(context, 'Dockerfile'),
      `FROM derived:${tag}\nRUN echo built > /built\nCOPY Dockerfile /copied\n`,
    )
    await docker.run('build', '--network', 'host', '-t', `built:${tag}`, context)
    assert.match(await run('--rm', `built:${tag}`, 'cat /built /copied'), /^built\nFROM derived/)
    await docker.run('save', '-o', join(context, 'saved.tar'), `built:${tag}`)
    await docker.run('tag', `built:${tag}`, `${world.server.host}/pushed:${tag}`)
    await docker.run('push', `${world.server.host}/pushed:${tag}`)
    assert.equal(driver.processes().length > 0, isNydus, 'nydusd runs when there is a Nydus image')
    await docker.run('rm', tag)
    const images = [reference, `derived:${tag}`, `built:${tag}`, `${world.server.host}/pushed:${tag}`]
    await docker.run('rmi', ...images)
  }
  assert.match(await docker.run('info'), /Layers: 0/)
})
