/** Volumes for Kata Containers, as an option of a mount. Source: docs/containerd-nydus-grpc.md, "Mounts". */
import { SnapshotterError } from './errors.ts'

const OPTION = 'io.katacontainers.volume'

/** Of a block device: where its hashes are, so that whoever reads it can check. Blocks in bytes, `blocknum` of data. */
export interface DmVerity {
  readonly hashtype: 'sha256'
  readonly hash: string
  readonly blocknum: number
  readonly blocksize: number
  readonly hashsize: number
  readonly offset: number
}

export interface KataVolume {
  readonly volume_type: 'image_guest_pull' | 'image_raw_block' | 'layer_raw_block'
  /** Kata wants one always, also where it has no meaning. */
  readonly source: string
  readonly fs_type?: string
  readonly options?: readonly string[]
  readonly image_pull?: { readonly metadata: Readonly<Record<string, string>> }
  readonly dm_verity?: DmVerity
}

export function kataOption(volume: KataVolume): string {
  return `${OPTION}=${Buffer.from(JSON.stringify(volume)).toString('base64')}`
}

/** The machine pulls the image itself. `metadata` tells it what. */
export function guestPullVolume(reference: string | undefined, metadata: ReadonlyMap<string, string>): KataVolume {
  const sorted = [...metadata].sort(([a], [b]) => (a < b ? -1 : 1))
  return {
    volume_type: 'image_guest_pull',
    source: reference || 'dummy-image-reference',
    ...(sorted.length === 0 ? {} : { options: sorted.map(([key, value]) => `${key}=${value}`) }),
    image_pull: { metadata: Object.fromEntries(sorted) },
  }
}

/** A disk with an EROFS file system. `verity` is the label's `blocks,offset,sha256:root`; without one it is "true", since containerd drops empty labels. */
export function diskVolume(kind: 'image' | 'layer', path: string, verity: string): KataVolume {
  const checked = verity === '' || verity === 'true' ? undefined : parseVerity(verity)
  return {
    volume_type: `${kind}_raw_block`,
    source: path,
    fs_type: 'erofs',
    options: ['ro'],
    ...(checked === undefined ? {} : { dm_verity: checked }),
  }
}

const BLOCK = 512
const HASH_BLOCK = 4096
const MAX_BLOCKS = 2 ** 32 - 1

function parseVerity(text: string): DmVerity {
  const [, blocks, at, hash] = /^(\d{1,15}),(\d{1,15}),sha256:([0-9a-f]{64})$/.exec(text) ?? []
  const [blocknum, offset] = [Number(blocks), Number(at)]
  const fits = blocknum > 0 && blocknum <= MAX_BLOCKS && offset % HASH_BLOCK === 0 && offset >= BLOCK * blocknum
  if (hash === undefined || !fits)
    throw new SnapshotterError(
      'INVALID_ARGUMENT',
      `${JSON.stringify(text)} does not tell the hashes of a disk; wanted is blocks,offset,sha256:root with the offset after the data`,
    )
  return { hashtype: 'sha256', hash, blocknum, blocksize: BLOCK, hashsize: HASH_BLOCK, offset }
}
