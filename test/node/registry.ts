/** The registry of a test: Debian's docker-registry as a process of its own, or the embedded one where that is missing. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { startRegistry } from '../../src/registry/index.ts'
import { ended, until } from './launched.ts'

export interface TestRegistry {
  /** `127.0.0.1:5000`. */
  readonly host: string
  /** `docker-registry 2.8.2`. */
  readonly program: string
  close(): Promise<void>
}

/** A user that a registry knows. */
export interface Login {
  readonly username: string
  readonly password: string
}

/** With a login it is the embedded one, which gives nothing to others. */
export async function startTestRegistry(folder: string, login?: Login): Promise<TestRegistry> {
  mkdirSync(folder, { recursive: true })
  if (login !== undefined) return await embeddedRegistry(folder, login)
  const { error, stdout } = spawnSync('docker-registry', ['--version'], { encoding: 'utf8' })
  if (error === undefined) return await dockerRegistry(folder, stdout.match(/\d+\.\d+\.\d+/)?.[0] ?? '')
  return await embeddedRegistry(folder, undefined)
}

async function embeddedRegistry(folder: string, login: Login | undefined): Promise<TestRegistry> {
  const users = login === undefined ? undefined : { [login.username]: login.password }
  const server = await startRegistry({
    root: folder,
    host: '127.0.0.1',
    port: 0,
    ...(users === undefined ? {} : { auth: { kind: 'bearer', users, tokenLifeMs: 300_000 } }),
  })
  return { host: server.host, program: 'the embedded registry', close: () => server.close() }
}

async function dockerRegistry(folder: string, version: string): Promise<TestRegistry> {
  const host = `127.0.0.1:${await freePort()}`
  const config = join(folder, 'config.yml')
  const lines = [
    'version: 0.1',
    'log: {level: error}',
    `storage: {filesystem: {rootdirectory: ${folder}/data}, delete: {enabled: true}}`,
    `http: {addr: "${host}"}`,
  ]
  writeFileSync(config, `${lines.join('\n')}\n`)
  const child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' })
  await until('docker-registry', async () => (await fetch(`http://${host}/v2/`)).ok || undefined)
  return {
    host,
    program: `docker-registry ${version}`,
    async close() {
      child.kill('SIGKILL')
      await ended(child)
    },
  }
}

/** A port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
