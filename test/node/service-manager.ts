/** What systemd is to a service with `FileDescriptorStoreMax`: it keeps the descriptors that it is sent, and gives them to the service's next process. Sources: sd_notify(3), sd_listen_fds(3). */
import { closeSync } from 'node:fs'
import { join } from 'node:path'
import { DatagramReceiver } from '../../src/kernel/testing/index.ts'

/** Sets `LISTEN_PID` to the number of the program that it becomes. */
const WITH_PID = 'export LISTEN_PID=$$; exec "$0" "$@"'

/** How a program is to be started. */
export interface ManagedStart {
  readonly program: string
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  /** They become 3, 4 and so on. */
  readonly descriptors: readonly number[]
}

export class ServiceManager implements Disposable {
  readonly #socket: string
  readonly #receiver: DatagramReceiver
  readonly #kept = new Map<string, number>()

  /** `folder` gets its socket. */
  constructor(folder: string) {
    this.#socket = join(folder, 'notify')
    this.#receiver = new DatagramReceiver(this.#socket)
  }

  /** Of what it keeps now. */
  async names(): Promise<string[]> {
    await this.#takeAll()
    return [...this.#kept.keys()].sort()
  }

  /** The same program under this manager. */
  async managed(program: string, args: readonly string[]): Promise<ManagedStart> {
    const names = await this.names()
    const env = {
      NOTIFY_SOCKET: this.#socket,
      LISTEN_FDS: String(names.length),
      LISTEN_FDNAMES: names.join(':'),
    }
    const descriptors = names.map((name) => this.#kept.get(name) ?? -1)
    return { program: '/bin/sh', args: ['-c', WITH_PID, program, ...args], env, descriptors }
  }

  [Symbol.dispose](): void {
    this.#receiver[Symbol.dispose]()
    for (const fd of this.#kept.values()) closeSync(fd)
  }

  async #takeAll(): Promise<void> {
    for (;;) {
      const next = await this.#receiver.nextWithDescriptors(0).catch(() => undefined) // there is no more
      if (next === undefined) return
      const fields = new Map(next.text.split('\n').map((line) => [line.split('=')[0], line.split('=')[1]] as const))
      const name = fields.get('FDNAME') ?? 'stored'
      const [device, ...others] = next.descriptors
      for (const fd of others) closeSync(fd)
      if (fields.has('FDSTOREREMOVE')) this.#drop(name)
      if (device === undefined) continue
      this.#drop(name)
      this.#kept.set(name, device)
    }
  }

  #drop(name: string): void {
    const fd = this.#kept.get(name)
    if (fd !== undefined) closeSync(fd)
    this.#kept.delete(name)
  }
}
