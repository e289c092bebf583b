import { execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { changeOwner, readMountInfo, unmount } from '../../kernel/index.ts'
import type { TarSink } from '../../tar/index.ts'
import { IntegrationError } from '../errors.ts'
import { type Change, CHANGE, latin1, layerChanges, statOf, treeChanges } from './changes.ts'
import { contentBytes } from './content-bytes.ts'
import type { IdMap } from './id-map.ts'
import { imageConfig } from './image-config.ts'
import { Layers, type RootAttributes } from './layers.ts'
import { Nydusd } from './nydusd.ts'
import { packChanges, packLayer } from './pack-layer.ts'
import { Turns } from './turns.ts'
import { unpackLayer } from './unpack-layer.ts'

/** What a driver needs of its surroundings. */
export interface DriverOptions {
  /** Where dockerd lets it keep its layers. */
  readonly home: string
  readonly ids: IdMap
  /** Path of nydusd, and of nydus-overlayfs. */
  readonly nydusd: string
  readonly overlayHelper: string
  /** nydusd's configuration; undefined for none. */
  readonly config: string | undefined
}

/** Of the layer that makes an image a Nydus image; the older place comes second. */
const BOOTSTRAPS = ['image/image.boot', 'image.boot']
/** What overlayfs must not do to upper directories that are packed as layers, where the kernel knows it. */
const PARAMETERS = ['index', 'redirect_dir', 'metacopy']
const ROOT: RootAttributes = { uid: 0, gid: 0, mode: 0o755 }

/**
 * Docker's storage: layers as overlayfs has them, and Nydus images, whose one layer is a bootstrap, by nydusd. Calls for one layer wait for each other; others run at once.
 * A mount that is there is counted once when the driver starts anew, as Docker's own drivers do.
 */
export class GraphDriver {
  readonly #options: DriverOptions
  readonly #layers: Layers
  readonly #nydusd: Nydusd
  readonly #turns = new Turns()
  /** How often a mounted layer was asked for and not given back. */
  readonly #uses = new Map<string, number>()

  constructor(options: DriverOptions) {
    this.#options = options
    this.#layers = new Layers(options.home)
    this.#nydusd = new Nydusd(options.nydusd, join(options.home, '.nydus'))
  }

  async create(id: string, parent: string, storage: Readonly<Record<string, unknown>>): Promise<void> {
    const [option] = Object.keys(storage)
    if (option !== undefined)
      throw new IntegrationError('UNSUPPORTED', `--storage-opt ${option} is not supported by this driver`)
    await this.#turns.run(id, async () => {
      this.#layers.places(id)
      const owner = this.#options.ids.toHost(0, 0)
      const root = parent === '' ? { ...ROOT, ...owner } : await this.#rootOf(parent)
      this.#layers.create(id, parent, root, owner)
    })
  }

  exists(id: string): boolean {
    return this.#layers.exists(id)
  }

  async remove(id: string): Promise<void> {
    await this.#turns.run(id, async () => {
      const { merged } = this.#layers.places(id)
      this.#uses.delete(id)
      if (await isMounted(merged)) await unmount(merged, true)
      if (this.#layers.exists(id) && this.#bootstrap(id) !== undefined) await this.#nydusd.unmount(id)
      this.#layers.remove(id)
    })
  }

  /** The directory in which a layer is seen with all below it. Each call wants a `put`. */
  async get(id: string, label: string): Promise<string> {
    if (label !== '')
      throw new IntegrationError(
        'UNSUPPORTED',
        'SELinux labels are not supported; start dockerd without --selinux-enabled',
      )
    return await this.#turns.run(id, async () => {
      const { diff, merged } = this.#layers.found(id)
      const lowers = await this.#lowers(id)
      if (lowers.length === 0) return diff
      const mounted = await isMounted(merged)
      const uses = this.#uses.get(id) ?? (mounted ? 1 : 0)
      if (!mounted) await this.#mount(id, lowers)
      this.#uses.set(id, mounted ? uses + 1 : 1)
      return merged
    })
  }

  async put(id: string): Promise<void> {
    await this.#turns.run(id, async () => {
      const { merged } = this.#layers.places(id)
      const mounted = await isMounted(merged)
      const uses = (this.#uses.get(id) ?? (mounted ? 1 : 0)) - 1
      if (uses > 0) {
        this.#uses.set(id, uses)
        return
      }
      this.#uses.delete(id)
      if (mounted) await unmount(merged)
    })
  }

  /** Fills a new layer; gives the bytes of its files. */
  async applyDiff(id: string, tar: AsyncIterable<Uint8Array>): Promise<number> {
    return await this.#turns.run(id, async () => {
      const { directory, diff } = this.#layers.found(id)
      if (readdirSync(diff).length > 0)
        throw new IntegrationError('FAILED', `layer ${id} has content already; only a new one can be filled`)
      const root = statOf(latin1(diff))
      const temporary = join(directory, 'apply')
      rmSync(temporary, { recursive: true, force: true })
      mkdirSync(temporary)
      try {
        changeOwner(temporary, Number(root?.uid ?? 0n), Number(root?.gid ?? 0n))
        await unpackLayer(tar, temporary, {
          rootMode: Number(root?.mode ?? 0o755n) & 0o7777,
          owner: this.#options.ids.toHost,
        })
        renameSync(temporary, diff)
      } finally {
        rmSync(temporary, { recursive: true, force: true })
      }
      return contentBytes(latin1(diff))
    })
  }

  /** Writes what a layer changes of `parent` (its own, or any other) as a tar. */
  async diff(id: string, parent: string, sink: TarSink): Promise<void> {
    const owner = this.#options.ids.toContainer
    const { diff } = this.#layers.found(id)
    if (parent === this.#layers.parent(id)) return await packLayer(latin1(diff), sink, owner)
    await this.#besideEachOther(id, parent, async (now, changes) => await packChanges(now, changes, sink, owner))
  }

  async changes(id: string, parent: string): Promise<Change[]> {
    const { diff } = this.#layers.found(id)
    if (parent !== this.#layers.parent(id))
      return await this.#besideEachOther(id, parent, async (_, changes) => changes)
    return layerChanges(latin1(diff), (await this.#lowers(id)).map(latin1))
  }

  /** Bytes of the files that a layer changes. */
  async diffSize(id: string, parent: string): Promise<number> {
    const { diff } = this.#layers.found(id)
    if (parent === this.#layers.parent(id)) return contentBytes(latin1(diff))
    return await this.#besideEachOther(id, parent, async (now, changes) =>
      changes
        .filter(({ kind }) => kind !== CHANGE.deleted)
        .map(({ path }) => statOf(now + path))
        .reduce((sum, stats) => sum + (stats?.isFile() === true ? Number(stats.size) : 0), 0),
    )
  }

  async metadata(id: string): Promise<Record<string, string>> {
    const { diff, work, merged } = this.#layers.found(id)
    const lowers = await this.#lowers(id)
    const own = { WorkDir: work, MergedDir: merged, UpperDir: diff }
    return lowers.length === 0 ? own : { ...own, LowerDir: lowers.join(':') }
  }

  async status(): Promise<Array<[string, string]>> {
    const nydusd = await this.#nydusd.summary()
    return [
      ['Backing Filesystem', fileSystemOf(this.#options.home)],
      ['Layers', `${this.#layers.all().length}`],
      ['Nydusd', nydusd === undefined ? 'not running' : `running, ${nydusd.version}`],
      ['Nydus images mounted', `${nydusd?.images ?? 0}`],
    ]
  }

  /** Unmounts all that is below the home, and ends nydusd. */
  async cleanup(): Promise<void> {
    const below = (await readMountInfo()).map(({ at }) => at).filter((at) => at.startsWith(`${this.#options.home}/`))
    const nydus = join(this.#options.home, '.nydus/')
    for (const at of below.reverse()) if (!at.startsWith(nydus)) await unmount(at, true)
    this.#uses.clear()
    await this.#nydusd.stop()
  }

  /** Directories below a layer, nearest first. A Nydus image stands for its layer and all below that. */
  async #lowers(id: string): Promise<string[]> {
    const lowers: string[] = []
    for (const layer of this.#layers.chain(id).slice(1)) {
      const bootstrap = this.#bootstrap(layer)
      if (bootstrap !== undefined) {
        lowers.push(await this.#image(layer, bootstrap))
        break
      }
      lowers.push(this.#layers.places(layer).diff)
    }
    return lowers
  }

  #bootstrap(id: string): string | undefined {
    const { diff } = this.#layers.places(id)
    // Of a directory of the layer itself: a link could lead anywhere.
    return BOOTSTRAPS.map((name) => join(diff, name)).find(
      (path) => statOf(latin1(join(path, '..')))?.isDirectory() === true && statOf(latin1(path))?.isFile() === true,
    )
  }

  async #image(layer: string, bootstrap: string): Promise<string> {
    const { home, config: template } = this.#options
    const options = { template, home, cacheDirectory: join(home, '.nydus/cache') }
    if (!(await this.#nydusd.mounted()).includes(`/${layer}`))
      await this.#turns.run(`image of ${layer}`, async () =>
        this.#nydusd.mount(layer, bootstrap, await imageConfig(options, layer)),
      )
    return this.#nydusd.place(layer)
  }

  async #rootOf(parent: string): Promise<RootAttributes> {
    const { diff } = this.#layers.found(parent)
    const bootstrap = this.#bootstrap(parent)
    const stats = statOf(latin1(bootstrap === undefined ? diff : await this.#image(parent, bootstrap)))
    if (stats === undefined) return ROOT
    return { uid: Number(stats.uid), gid: Number(stats.gid), mode: Number(stats.mode) & 0o7777 }
  }

  async #mount(id: string, lowers: readonly string[]): Promise<void> {
    const { diff, work, merged } = this.#layers.places(id)
    const escape = (path: string): string => path.replaceAll(/[\\,:]/g, '\\$&')
    const parameters = PARAMETERS.filter((name) => existsSync(`/sys/module/overlay/parameters/${name}`))
    const options = [
      `lowerdir=${lowers.map(escape).join(':')}`,
      `upperdir=${escape(diff)}`,
      `workdir=${escape(work)}`,
      ...parameters.map((name) => `${name}=off`),
    ]
    try {
      await promisify(execFile)(this.#options.overlayHelper, ['overlay', merged, '-o', options.join(',')])
    } catch (cause) {
      const told = (cause as { readonly stderr?: string }).stderr?.trim() ?? (cause as Error).message
      throw new IntegrationError('FAILED', `cannot mount layer ${id}: ${told}`, { cause })
    }
    const { uid, gid } = this.#options.ids.toHost(0, 0)
    if (uid !== 0) changeOwner(join(work, 'work'), uid, gid)
    if (uid !== 0) chmodSync(join(work, 'work'), 0o700)
  }

  /** Compares two layers as they are seen, whatever is below each. */
  async #besideEachOther<Result>(
    id: string,
    parent: string,
    use: (now: string, changes: Change[]) => Promise<Result>,
  ): Promise<Result> {
    const now = await this.get(id, '')
    try {
      const before = parent === '' ? undefined : await this.get(parent, '')
      try {
        return await use(latin1(now), treeChanges(latin1(now), before === undefined ? undefined : latin1(before)))
      } finally {
        if (before !== undefined) await this.put(parent)
      }
    } finally {
      await this.put(id)
    }
  }
}

async function isMounted(path: string): Promise<boolean> {
  return (await readMountInfo()).some(({ at }) => at === path)
}

/** By the magic numbers that statfs gives. */
const FILE_SYSTEMS = new Map([
  [0xef53, 'extfs'],
  [0x58465342, 'xfs'],
  [0x9123683e, 'btrfs'],
  [0x01021994, 'tmpfs'],
  [0x794c7630, 'overlayfs'],
  [0x2fc12fc1, 'zfs'],
])

function fileSystemOf(path: string): string {
  return FILE_SYSTEMS.get(statfsSync(path).type) ?? '<unknown>'
}
