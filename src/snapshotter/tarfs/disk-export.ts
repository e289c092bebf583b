import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TurnsByKey } from '../daemons/turns.ts'
import { SnapshotterError } from '../errors.ts'
import type { Settings } from '../settings/index.ts'
import { runNydusImage } from '../nydus-image.ts'

export type DiskKind = 'layer' | 'image'

interface DiskExportParts {
  readonly program: string
  readonly cacheDir: string
  /** Of what is kept beside the cache. */
  readonly directory: string
  readonly mode: Settings['tarfs']['exportMode']
  readonly signal: AbortSignal
}

/** Source: docs/containerd-nydus-grpc.md, "Images from tars". */
const MODES: Readonly<
  Record<Exclude<DiskExportParts['mode'], undefined>, { kind: DiskKind; disk: boolean; verity: boolean }>
> = {
  layer_verity_only: { kind: 'layer', disk: false, verity: true },
  image_verity_only: { kind: 'image', disk: false, verity: true },
  layer_block: { kind: 'layer', disk: true, verity: false },
  image_block: { kind: 'image', disk: true, verity: false },
  layer_block_with_verity: { kind: 'layer', disk: true, verity: true },
  image_block_with_verity: { kind: 'image', disk: true, verity: true },
}

/** Disks with an EROFS file system each, which virtual machines mount. */
export class DiskExport {
  readonly #parts: DiskExportParts
  readonly #turns = new TurnsByKey()

  constructor(parts: DiskExportParts) {
    this.#parts = parts
  }

  path(kind: DiskKind, hex: string): string {
    return join(this.#parts.cacheDir, `${hex}.${kind}.disk`)
  }

  /** Exports what is configured; gives the value of the label that tells of it: `blocks,offset,sha256:root`, or "true". Undefined: nothing of this kind is wanted. Throws SnapshotterError. */
  async export(kind: DiskKind, hex: string, bootstrap: string): Promise<string | undefined> {
    const { mode } = this.#parts
    if (mode === undefined) return undefined
    const wanted = MODES[mode]
    if (wanted.kind !== kind) return undefined
    return await this.#turns.take(`${kind} ${hex}`, async () => await this.#export(wanted, hex, bootstrap))
  }

  async #export(
    { kind, disk, verity }: { kind: DiskKind; disk: boolean; verity: boolean },
    hex: string,
    bootstrap: string,
  ): Promise<string> {
    const { program, cacheDir, directory, signal } = this.#parts
    const [path, told] = [this.path(kind, hex), join(directory, `${hex}.${kind}${verity ? '.verity' : ''}`)]
    const known = await readFile(told, 'utf8').catch(() => undefined)
    // An empty one was not finished.
    if (known !== undefined && known !== '' && (!disk || (await isThere(path)))) return known
    const unfinished = `${path}.tarfs.tmp`
    try {
      const args = ['export', '--block', '--localfs-dir', cacheDir, '--bootstrap', bootstrap, '--output', unfinished]
      const printed = await runNydusImage(program, verity ? [...args, '--verity'] : args, signal)
      const value = verity ? verityIn(printed) : 'true'
      if (disk) await rename(unfinished, path)
      await writeFile(told, value)
      return value
    } finally {
      await rm(unfinished, { force: true })
    }
  }
}

function verityIn(printed: string): string {
  const [, blocks, offset, root] = /--data-blocks (\d+) --hash-offset (\d+) ([0-9a-f]{64})/.exec(printed) ?? []
  if (root === undefined)
    throw new SnapshotterError('INTERNAL', 'nydus-image export --verity did not tell the root of the hashes')
  return `${blocks},${offset},sha256:${root}`
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}
