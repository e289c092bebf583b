/** The bootstrap that containerd unpacks into a layer's directory. The layer comes from an image: names and links in it are hostile. */
import { createPublicKey, createVerify, type KeyObject } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { copyFile, lstat, mkdir, open, readdir, readFile, realpath, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, sep } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { SnapshotterError } from '../errors.ts'
import type { Labels } from '../snapshot.ts'
import { NYDUS_SIGNATURE } from '../labels.ts'
import { messageOf } from './message.ts'

/** Where builders put it; older ones put it at the top. */
const PLACES = ['fs/image/image.boot', 'fs/image.boot'] as const
const POLLS = 20
const POLL_MS = 50
/** RAFS v6: magic of EROFS, and the binary logarithm of the block size. Source: docs/formats/rafs-v6.md, "EROFS superblock". */
const V6 = { magicAt: 1024, magic: 0xe0f5_e1e2, blockBitsAt: 1024 + 12 } as const
const HEAD_BYTES = 2048
const BLOB_META = /^[A-Za-z0-9][A-Za-z0-9_-]{0,199}\.blob\.meta$/

/** Path of the bootstrap below a snapshot's directory, whole: it is there, has stopped growing, and lies where it says. Throws SnapshotterError. */
export async function readyBootstrap(directory: string, signal: AbortSignal): Promise<string> {
  let why = ''
  for (let poll = 0, before = ''; poll < POLLS; poll++) {
    signal.throwIfAborted()
    const found = await bootstrapIn(directory)
    if (found === undefined) why = `there is none of ${PLACES.join(', ')}`
    else {
      const { size, mtimeNs } = await stat(found, { bigint: true })
      const now = `${found} ${size} ${mtimeNs}`
      const problem = await incompleteness(found, Number(size))
      if (problem === undefined && now === before) return found
      why = problem ?? 'it still changes'
      before = now
    }
    await sleep(POLL_MS, undefined, { signal })
  }
  throw new SnapshotterError(
    'UNAVAILABLE',
    `the bootstrap in ${directory} is not complete: ${why}; pull the image again if that stays so`,
  )
}

/** Where the bootstrap of a mounted image is, which was checked before. */
export function bootstrapPath(directory: string): string {
  const [now, before] = PLACES
  const old = join(directory, before)
  return !existsSync(join(directory, now)) && existsSync(old) ? old : join(directory, now)
}

async function bootstrapIn(directory: string): Promise<string | undefined> {
  for (const place of PLACES) {
    try {
      const path = await insideOf(directory, join(directory, place))
      if (path !== undefined) return path
    } catch (error) {
      if (!['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    }
  }
  return undefined
}

/** The path, if it is a file and no link leads elsewhere. Throws what the system says. */
async function insideOf(directory: string, path: string): Promise<string | undefined> {
  if (!(await lstat(path)).isFile()) return undefined
  const real = await realpath(path)
  return real.startsWith((await realpath(directory)) + sep) ? path : undefined
}

async function incompleteness(path: string, size: number): Promise<string | undefined> {
  if (size === 0) return 'it is empty'
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0)
    if (bytesRead < HEAD_BYTES || buffer.readUInt32LE(V6.magicAt) !== V6.magic) return undefined
    const bits = buffer.readUInt8(V6.blockBitsAt)
    if (bits !== 9 && bits !== 12) return `it has blocks of 2^${bits} bytes`
    return size % 2 ** bits === 0 ? undefined : `its ${size} bytes end within a block`
  } finally {
    await file.close()
  }
}

/** Chunk tables that builders put beside the bootstrap save nydusd a request each. What is in the cache already stays. */
export async function copyBlobMetas(bootstrap: string, cacheDirectory: string): Promise<void> {
  const directory = dirname(bootstrap)
  const names = (await readdir(directory)).filter((name) => BLOB_META.test(name))
  if (names.length === 0) return
  await mkdir(cacheDirectory, { recursive: true })
  for (const name of names) {
    const [from, to] = [join(directory, name), join(cacheDirectory, name)]
    if (!(await lstat(from)).isFile() || (await exists(to))) continue
    const temporary = `${to}.${process.pid}.tmp`
    try {
      await copyFile(from, temporary)
      await rename(temporary, to)
    } finally {
      await rm(temporary, { force: true })
    }
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

/** Throws SnapshotterError 'BAD_CONFIG'. */
export async function readPublicKey(path: string): Promise<KeyObject> {
  try {
    const pem = await readFile(path, 'utf8')
    // upstream's tools write the plain RSA form under the general name
    const der = Buffer.from(pem.replaceAll(/-----[^-]+-----/g, ''), 'base64')
    try {
      return createPublicKey({ key: der, format: 'der', type: 'pkcs1' })
    } catch {
      return createPublicKey(pem)
    }
  } catch (error) {
    throw new SnapshotterError(
      'BAD_CONFIG',
      `image.public_key_file ${path} is no RSA public key in PEM form: ${messageOf(error)}`,
      { cause: error },
    )
  }
}

/** The label has a signature (RSA, PKCS#1 v1.5, SHA-256, base64) of the bootstrap's bytes. Throws SnapshotterError 'FAILED_PRECONDITION'. */
export async function checkSignature(bootstrap: string, labels: Labels, key: KeyObject): Promise<void> {
  const signature = labels.get(NYDUS_SIGNATURE)
  const refuse = (why: string): never => {
    throw new SnapshotterError('FAILED_PRECONDITION', `the bootstrap ${bootstrap} is not mounted: ${why}`)
  }
  if (signature === undefined) return refuse(`image.validate_signature is on, and there is no label ${NYDUS_SIGNATURE}`)
  const verifier = createVerify('RSA-SHA256')
  for await (const part of createReadStream(bootstrap) as AsyncIterable<Buffer>) verifier.update(part)
  if (!verifier.verify(key, signature, 'base64'))
    refuse(`its signature does not fit: the file, the label ${NYDUS_SIGNATURE} or the key is another one`)
}
