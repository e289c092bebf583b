/** Whether the kernel shows EROFS images from files, and fails where it must. Tried, never told from a version. */
import { closeSync, constants, openSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BLOB_FEATURES, type BlobInfo } from '../../blob/index.ts'
import { KernelError, mountErofs, unmount } from '../../kernel/index.ts'
import { FileTree, newValues, writeFilesV6 } from '../../rafs/index.ts'

const BLOCK = 4096
const CONTENT = Buffer.alloc(BLOCK, 'nydus ')
const REGULAR = 0o100444
const DIRECTORY = 0o40555
const ENOTBLK = 15
const NOT_ALIKE =
  'this kernel opens no file there with O_DIRECT, as some programs want; write enable_erofs_for_cached = true under [snapshot] if none of yours does'

/** Which images that the kernel shows are wanted: those that no container can tell from nydusd's, or all that it can show. */
export type KernelImageWish = 'alike' | 'possible'

/**
 * Why images are not shown by the kernel from files below `root`; undefined = they are. An image of two files is mounted: one must have its bytes, the other, whose data is not there, must fail to be read (kernels before the
 * mend of 2026 may show zeros for what they could not read, and keep them). Where `alike` is
 * wanted, files must open for direct reads too, as nydusd's do. Needs CAP_SYS_ADMIN; leaves nothing. Never throws.
 */
export async function whyNoKernelImages(root: string, wish: KernelImageWish): Promise<string | undefined> {
  let directory: string | undefined
  try {
    await mkdir(root, { recursive: true, mode: 0o700 })
    directory = await mkdtemp(join(root, '.probe-'))
    return await tried(directory, wish)
  } catch (error) {
    if (error instanceof KernelError && error.errno === ENOTBLK)
      return `the kernel mounts no EROFS image from a file of the file system of ${root} (Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE does, on ext4, XFS and Btrfs)`
    return error instanceof Error ? error.message : String(error)
  } finally {
    if (directory !== undefined) await rm(directory, { recursive: true, force: true }).catch(() => undefined) // the next start removes it
  }
}

async function tried(directory: string, wish: KernelImageWish): Promise<string | undefined> {
  const [image, at] = [join(directory, 'image'), join(directory, 'mnt')]
  const devices = ['there', 'gone'].map((name) => join(directory, name))
  await mkdir(at)
  await writeFile(image, probeImage())
  for (const device of devices) await writeFile(device, CONTENT)
  await truncate(devices[1] ?? '', 0)
  await mountErofs(image, at, devices)
  try {
    if (!(await readFile(join(at, 'there'))).equals(CONTENT)) return 'the kernel shows other bytes than a file has'
    const wrong = await readFile(join(at, 'gone')).then(
      () => true,
      () => false,
    )
    if (wrong) return 'this kernel shows zeros in the place of data that it cannot read'
    return wish === 'possible' || opensDirectly(join(at, 'there')) ? undefined : NOT_ALIKE
  } finally {
    await unmount(at)
  }
}

function opensDirectly(path: string): boolean {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_DIRECT))
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return false
    throw error
  }
}

function probeImage(): Uint8Array {
  const files = new FileTree()
  const root = files.addRoot(newValues(DIRECTORY))
  for (const [blobIndex, name] of ['there', 'gone'].entries()) {
    const chunks = files.chunks.addList(1)
    const chunk = { blobIndex, index: 0, compressedOffset: 0, uncompressedOffset: 0, crc32c: undefined }
    const sizes = { compressedSize: BLOCK, uncompressedSize: BLOCK, compressed: false, encrypted: false }
    const digest = new Uint8Array(32).fill(blobIndex + 1)
    files.chunks.setUse(chunks.start, files.chunks.add({ ...chunk, ...sizes, digest }))
    files.put(root, name, { ...newValues(REGULAR), size: BLOCK, chunks })
  }
  const options = { chunkSize: BLOCK, compression: 'none', digest: 'sha256', prefetch: [] } as const
  return writeFilesV6(
    { files, root, blobs: [probeBlob(0), probeBlob(1)] },
    { ...options, explicitOwners: true, alwaysXattrs: false },
  )
}

function probeBlob(index: number): BlobInfo {
  return {
    index,
    id: String(index).repeat(64),
    features: BLOB_FEATURES.ALIGNED,
    chunkSize: BLOCK,
    chunkCount: 1,
    compression: 'none',
    digest: 'sha256',
    compressedSize: BLOCK,
    uncompressedSize: BLOCK,
    prefetchSize: 0,
    metaOffset: 0,
    metaCompressedSize: 16,
    metaUncompressedSize: 16,
    metaCompression: 'none',
    tocSize: 0,
    tocDigest: undefined,
  }
}
