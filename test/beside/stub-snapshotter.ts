/** For tests: a snapshotter over plain folders, that answers "already exists" for layers of Nydus data, as remote snapshotters do, and notes what it is asked. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import {
  ContainerdError,
  type Handlers,
  type MountMessage,
  type RunningServer,
  serve,
  service,
  SnapshotKindNumber,
  Snapshots,
} from '../../src/containerd/index.ts'

interface StubSnapshot {
  readonly id: number
  name: string
  readonly parent: string
  kind: SnapshotKindNumber
  labels: Record<string, string>
}

type MountShape = Pick<MountMessage, 'type' | 'source' | 'options'>

export interface StubOptions {
  /** Type of overlay mounts, and what is put behind their options. */
  readonly overlayType: string
  readonly extraOptions: readonly string[]
}

export class StubSnapshotter implements AsyncDisposable {
  readonly asked: string[] = []
  readonly snapshots = new Map<string, StubSnapshot>()
  /** Labels of every Prepare, by the digest of its layer. */
  readonly prepared: Array<Record<string, string>> = []
  readonly #root: string
  readonly #options: StubOptions
  #server: RunningServer | undefined
  #ids = 0

  private constructor(root: string, options: StubOptions) {
    this.#root = root
    this.#options = options
  }

  static async start(socket: string, root: string, options: StubOptions): Promise<StubSnapshotter> {
    const stub = new StubSnapshotter(root, options)
    const owner = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
    stub.#server = await serve({ path: socket, ...owner, services: [service(Snapshots, stub.#handlers())], raw: [] })
    return stub
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.stop(100)
  }

  #handlers(): Handlers<typeof Snapshots> {
    return {
      prepare: async ({ key, parent, labels }) => {
        this.prepared.push(labels)
        const target = labels['containerd.io/snapshot.ref']
        if (target !== undefined && labels['containerd.io/snapshot/nydus-blob'] !== undefined) {
          if (!this.snapshots.has(target)) this.#create(target, parent, SnapshotKindNumber.COMMITTED, labels)
          throw new ContainerdError('ALREADY_EXISTS', `target snapshot "${target}": already exists`)
        }
        return { mounts: this.#mounts(this.#create(key, parent, SnapshotKindNumber.ACTIVE, labels)) }
      },
      view: async ({ key, parent, labels }) => ({
        mounts: this.#mounts(this.#create(key, parent, SnapshotKindNumber.VIEW, labels)),
      }),
      mounts: async ({ key }) => ({ mounts: this.#mounts(this.#find(key)) }),
      commit: async ({ name, key, labels }) => {
        const snapshot = this.#find(key)
        this.snapshots.delete(key)
        Object.assign(snapshot, { name, labels, kind: SnapshotKindNumber.COMMITTED })
        this.snapshots.set(name, snapshot)
        return {}
      },
      remove: async ({ key }) => {
        this.asked.push(`remove ${key}`)
        rmSync(this.#folder(this.#find(key)), { recursive: true, force: true })
        this.snapshots.delete(key)
        return {}
      },
      stat: async ({ key }) => ({ info: this.#find(key) }),
      update: async ({ info }) => ({ info: this.#find(info?.name ?? '') }),
      list: this.#list.bind(this),
      usage: async () => ({ size: 0n, inodes: 0n }),
      cleanup: async () => ({}),
    }
  }

  async *#list({ filters }: { readonly filters: readonly string[] }) {
    const wanted = /snapshot\.ref"?==("?)([^",]+)\1/.exec(filters[0] ?? '')?.[2]
    const all = [...this.snapshots.values()]
    yield {
      info: all.filter(({ labels }) => wanted === undefined || labels['containerd.io/snapshot.ref'] === wanted),
    }
  }

  #create(name: string, parent: string, kind: SnapshotKindNumber, labels: Record<string, string>): StubSnapshot {
    if (this.snapshots.has(name)) throw new ContainerdError('ALREADY_EXISTS', name)
    this.#ids += 1
    const snapshot = { id: this.#ids, name, parent, kind, labels }
    for (const part of ['fs', 'work']) mkdirSync(join(this.#folder(snapshot), part), { recursive: true })
    this.snapshots.set(name, snapshot)
    return snapshot
  }

  #find(name: string): StubSnapshot {
    const snapshot = this.snapshots.get(name)
    if (snapshot === undefined) throw new ContainerdError('NOT_FOUND', `snapshot ${name} does not exist: not found`)
    return snapshot
  }

  #folder({ id }: StubSnapshot): string {
    return join(this.#root, `${id}`)
  }

  #mounts(snapshot: StubSnapshot): MountShape[] {
    const own = join(this.#folder(snapshot), 'fs')
    const lower: string[] = []
    for (let at = snapshot.parent; at !== ''; at = this.#find(at).parent)
      lower.push(join(this.#folder(this.#find(at)), 'fs'))
    if (lower.length === 0) return [{ type: 'bind', source: own, options: ['rw', 'rbind'] }]
    const options = [
      `workdir=${join(this.#folder(snapshot), 'work')}`,
      `upperdir=${own}`,
      `lowerdir=${lower.join(':')}`,
    ]
    // containerd unpacks layers itself, without a helper.
    const isContainer = snapshot.labels['containerd.io/snapshot.ref'] === undefined
    return isContainer
      ? [{ type: this.#options.overlayType, source: 'overlay', options: [...options, ...this.#options.extraOptions] }]
      : [{ type: 'overlay', source: 'overlay', options }]
  }
}
