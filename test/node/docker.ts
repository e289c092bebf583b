/** A private dockerd over the node's containerd, spoken to by its API. */
import assert from 'node:assert/strict'
import { type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { ended, launch, until } from './launched.ts'
import { unmountBelow } from './left-overs.ts'
import type { TestNode } from './node.ts'

const CALL_MS = 120_000
/** The builder that Docker had before BuildKit, and BuildKit. */
const BUILDERS = { older: '1', buildkit: '2' } as const
export type Builder = keyof typeof BUILDERS

/** An answer of dockerd. */
interface Answer {
  readonly status: number
  readonly bytes: Buffer
}

export class Docker implements AsyncDisposable {
  readonly #folder: string
  readonly #socket: string
  readonly #child: ChildProcess

  private constructor(folder: string, socket: string, child: ChildProcess) {
    this.#folder = folder
    this.#socket = socket
    this.#child = child
  }

  /** `path` is a PATH with dockerd and runc. */
  static async start(node: TestNode, path: string, registryHost: string): Promise<Docker> {
    const at = join(node.path, 'docker')
    mkdirSync(at)
    const socket = join(at, 'd.sock')
    const config = {
      features: { 'containerd-snapshotter': true },
      'storage-driver': 'nydus',
      containerd: node.socket,
      'data-root': join(at, 'data'),
      'exec-root': join(at, 'exec'),
      pidfile: join(at, 'pid'),
      hosts: [`unix://${socket}`],
      'insecure-registries': [registryHost],
      bridge: 'none',
      iptables: false,
      ip6tables: false,
      'userland-proxy': false,
      'cgroup-parent': `/${node.cgroup}`,
    }
    writeFileSync(join(at, 'daemon.json'), JSON.stringify(config))
    const child = launch('dockerd', ['--config-file', join(at, 'daemon.json')], {
      cwd: at,
      log: join(node.path, 'docker.log'),
      env: { PATH: path },
      mark: node.path,
    })
    const docker = new Docker(at, socket, child)
    await until('dockerd', async () => ((await docker.#call('GET', '/_ping')).status === 200 ? true : undefined))
    return docker
  }

  async #call(method: string, path: string, body?: unknown): Promise<Answer> {
    const text = body === undefined ? undefined : JSON.stringify(body)
    return await new Promise((resolve, reject) => {
      const login = { 'x-registry-auth': Buffer.from('{}').toString('base64') } // pushes want one
      const content = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text ?? '') }
      const headers = text === undefined ? login : { ...login, ...content }
      const call = request(
        { socketPath: this.#socket, method, path, headers, agent: false, timeout: CALL_MS },
        (answer) => {
          buffer(answer).then((bytes) => resolve({ status: answer.statusCode ?? 0, bytes }), reject)
        },
      )
      call.on('error', reject)
      call.on('timeout', () => call.destroy(new Error(`${method} ${path}: no answer`)))
      call.end(text)
    })
  }

  /** The answer's document; throws what dockerd says. */
  async ask(method: string, path: string, body?: unknown): Promise<unknown> {
    const { status, bytes } = await this.#call(method, path, body)
    assert.ok(status < 300, `${method} ${path}: ${status} ${bytes.toString()}`)
    return bytes.length === 0 ? undefined : JSON.parse(bytes.toString())
  }

  /** For calls that tell how they get on; throws when a line is an error. */
  async #progress(path: string): Promise<void> {
    const { status, bytes } = await this.#call('POST', path)
    const text = bytes.toString()
    assert.ok(status === 200 && !text.includes('"error"'), `${path}: ${status} ${text}`)
  }

  async pull(reference: string): Promise<void> {
    await this.#progress(`/images/create?fromImage=${encodeURIComponent(reference)}`)
  }

  async push(reference: string): Promise<void> {
    const [name, tag] = named(reference)
    await this.#progress(`/images/${name}/push?tag=${tag}`)
  }

  /** `context` is a tar with a Dockerfile. It is fetched from here: only then BuildKit needs nobody who stays connected. */
  async build(context: Buffer, reference: string, builder: Builder): Promise<void> {
    const server = createServer((_asked, answer) => answer.setHeader('content-type', 'application/x-tar').end(context))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      const remote = `http://127.0.0.1:${(server.address() as AddressInfo).port}/context.tar`
      const asked = { version: BUILDERS[builder], t: reference, remote, networkmode: 'host', forcerm: '1' }
      await this.#progress(`/build?${new URLSearchParams(asked).toString()}`)
    } finally {
      server.closeAllConnections()
      server.close()
    }
  }

  /** What a container has written, as a layer upon its image. */
  async commit(container: string, reference: string): Promise<void> {
    const [name, tag] = named(reference)
    await this.ask('POST', `/commit?container=${container}&repo=${encodeURIComponent(name)}&tag=${tag}`, {})
  }

  /** Another name for an image. */
  async tag(reference: string, other: string): Promise<void> {
    const [name, tag] = named(other)
    await this.ask('POST', `/images/${encodeURIComponent(reference)}/tag?repo=${encodeURIComponent(name)}&tag=${tag}`)
  }

  /** All images, and what builders keep. */
  async removeImages(): Promise<void> {
    const images = (await this.ask('GET', '/images/json?all=1')) as Array<{ Id: string }>
    for (const { Id } of images) {
      const { status, bytes } = await this.#call('DELETE', `/images/${Id}?force=1`)
      assert.ok(status === 200 || status === 404, bytes.toString()) // one may go with another
    }
    await this.ask('POST', '/build/prune?all=1')
  }

  /** A container that runs the command. */
  async run(image: string, name: string, command: readonly string[]): Promise<void> {
    const host = { NetworkMode: 'host', SecurityOpt: ['apparmor=unconfined'] }
    await this.ask('POST', `/containers/create?name=${name}`, { Image: image, Cmd: command, HostConfig: host })
    await this.ask('POST', `/containers/${name}/start`)
  }

  /** The script's output in a container; throws when it fails. */
  async exec(name: string, script: string): Promise<string> {
    const body = { AttachStdout: true, AttachStderr: true, Cmd: ['/bin/sh', '-c', script] }
    const { Id } = (await this.ask('POST', `/containers/${name}/exec`, body)) as { Id: string }
    const { bytes } = await this.#call('POST', `/exec/${Id}/start`, { Detach: false, Tty: false })
    const output = unframed(bytes)
    const { ExitCode } = (await this.ask('GET', `/exec/${Id}/json`)) as { ExitCode: number }
    assert.equal(ExitCode, 0, `${script}: ${output}`)
    return output
  }

  async remove(name: string): Promise<void> {
    await this.ask('DELETE', `/containers/${name}?force=true`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM')
    await ended(this.#child)
    unmountBelow(this.#folder) // it leaves the name of a network namespace
  }
}

/** A reference's repository and tag. */
function named(reference: string): readonly [name: string, tag: string] {
  const colon = reference.lastIndexOf(':')
  return [reference.slice(0, colon), reference.slice(colon + 1)]
}

/** The output in its frames: stream, three zeros, length. */
function unframed(bytes: Buffer): string {
  const parts: Buffer[] = []
  for (let at = 0; at + 8 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at + 4)
    parts.push(bytes.subarray(at + 8, at + 8 + length))
    at += 8 + length
  }
  return Buffer.concat(parts).toString()
}
